package supervisor

import (
	"slices"
	"time"

	"github.com/sourcery-zone/sandbox/machine"
)

// shareWatchInterval is how soon it is noticed that a shared directory was made
// anew: the guest goes on with the old one, which looks empty, until it is
// started again. inotify would tell at once, but not of what is above.
const shareWatchInterval = 5 * time.Second

// watchShares notes what becomes of the shared directories, until the sandbox
// ends.
func (v *supervisor) watchShares() {
	tick := time.NewTicker(shareWatchInterval)
	defer tick.Stop()
	for {
		select {
		case <-v.done:
			return
		case <-tick.C:
			v.lookAtShares()
		}
	}
}

func (v *supervisor) lookAtShares() {
	changes := map[string]string{}
	for _, server := range v.currentServers() {
		if !server.export.own {
			changes[server.export.Source] = server.Changed(server.export.Share)
		}
	}
	shown, changed := noteChanges(v.currentState().Shares, changes)
	if !changed {
		return
	}
	v.log.Warn("what is shared has changed", "shares", shown)
	err := v.setState(func(st *machine.State) {
		st.Shares = slices.Clone(st.Shares)
		for i := range st.Shares { // others may have come and gone meanwhile
			if n := slices.IndexFunc(shown, func(s machine.ServedShare) bool { return s.Source == st.Shares[i].Source }); n >= 0 {
				st.Shares[i].Changed = shown[n].Changed
			}
		}
	})
	if err != nil {
		v.log.Error("the state could not be written", "err", err)
	}
}

// noteChanges returns how the directories are served, with what is at their
// paths now, and whether that is news.
func noteChanges(shown []machine.ServedShare, changes map[string]string) (now []machine.ServedShare, news bool) {
	now = slices.Clone(shown)
	for i := range now {
		if what, ok := changes[now[i].Source]; ok && what != now[i].Changed {
			now[i].Changed, news = what, true
		}
	}
	return now, news
}
