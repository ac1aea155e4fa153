package supervisor

import (
	"errors"
	"fmt"
	"slices"

	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/network"
)

// publish opens ports to the running guest, all or none.
func (v *supervisor) publish(forwards []network.Forward) (opened []network.Forward, err error) {
	if !v.transition.TryLock() {
		return nil, errTransition
	}
	defer v.transition.Unlock()
	if err := v.checkPublish(); err != nil {
		return nil, err
	}
	c, err := v.config.Publishing(forwards)
	if err != nil {
		return nil, err
	}
	defer v.followAgain()
	if err := v.yieldPorts(forwards); err != nil {
		return nil, err
	}
	for _, f := range forwards {
		if f, err = v.gateway.Publish(f); err != nil {
			break
		}
		opened = append(opened, f)
	}
	if err == nil {
		err = v.setForwards(c.Forwards, slices.Concat(v.ports.forwards, opened))
	}
	if err != nil {
		for _, f := range opened {
			err = errors.Join(err, v.gateway.Unpublish(f))
		}
		return nil, err
	}
	return opened, nil
}

// unpublish closes ports of the running guest. They are named as they were opened.
func (v *supervisor) unpublish(forwards []network.Forward) error {
	if !v.transition.TryLock() {
		return errTransition
	}
	defer v.transition.Unlock()
	if err := v.checkPublish(); err != nil {
		return err
	}
	asked, open := slices.Clone(v.config.Forwards), slices.Clone(v.ports.forwards)
	for _, f := range forwards {
		i := slices.Index(open, f)
		if i < 0 {
			return v.s.NotPublished(f)
		}
		asked, open = slices.Delete(asked, i, i+1), slices.Delete(open, i, i+1)
	}
	if err := v.setForwards(asked, open); err != nil {
		return err
	}
	defer v.followAgain()
	var errs []error
	for _, f := range forwards {
		errs = append(errs, v.gateway.Unpublish(f))
	}
	return errors.Join(errs...)
}

// checkPublish finds a guest whose ports cannot be changed now.
func (v *supervisor) checkPublish() error {
	if st := v.currentState(); st.Status != machine.StatusRunning && st.Status != machine.StatusPaused {
		return v.s.NotRunning(st)
	}
	if v.config.Network == network.ModeUser {
		return remedy.Add(fmt.Errorf("the ports of %s are opened only when it starts, because its network is QEMU's own", v.s.Name), remedy.Stop, v.s.Name)
	}
	return nil
}

// setForwards notes the ports that were asked for, and the ones that are open, in the
// same order.
func (v *supervisor) setForwards(asked, open []network.Forward) error {
	if err := v.record(func(c *machine.Config) { c.Forwards = asked }); err != nil {
		return err
	}
	v.ports.forwards = open
	return v.setState(func(st *machine.State) { st.Forwards = open })
}
