package qmp

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// AddSocket makes a connected stream socket a character device of QEMU's with that id. The caller keeps the file, and
// may close it.
func (c *Client) AddSocket(ctx context.Context, id string, socket *os.File) error {
	if err := c.passFile(ctx, "getfd", map[string]any{"fdname": id}, nil, socket); err != nil {
		return err
	}
	err := c.Execute(ctx, "chardev-add", map[string]any{"id": id, "backend": map[string]any{
		"type": "socket",
		"data": map[string]any{"server": false, "addr": map[string]any{"type": "fd", "data": map[string]any{"str": id}}},
	}}, nil)
	if err != nil {
		_ = c.Execute(ctx, "closefd", map[string]any{"fdname": id}, nil) // err says what matters
	}
	return err
}

// RemoveSocket closes a socket of AddSocket that no device uses any more.
func (c *Client) RemoveSocket(ctx context.Context, id string) error {
	return c.Execute(ctx, "chardev-remove", map[string]any{"id": id}, nil)
}

// Plug adds a device, by the arguments of device_add, to the machine. The guest finds it in its own time.
func (c *Client) Plug(ctx context.Context, arguments map[string]any) error {
	return c.Execute(ctx, "device_add", arguments, nil)
}

// Unplug asks the guest to let go of the device with that id, and returns when it is gone, or never was. It is for the
// guest to decide, so that ctx should have a deadline; the guest may be asked again after that.
func (c *Client) Unplug(ctx context.Context, id string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := c.Events(ctx)
	if err != nil {
		return err
	}
	if gone, err := c.askToUnplug(ctx, id); gone || err != nil {
		return err
	}
	for {
		select {
		case e, ok := <-events:
			switch device, _ := e.Data["device"].(string); {
			case !ok && ctx.Err() == nil:
				return c.noEvents()
			case !ok:
				return fmt.Errorf("the guest has not let go of the device %s: %w", id, context.Cause(ctx))
			case device != id:
			case e.Event == "DEVICE_DELETED":
				return nil
			case e.Event == "DEVICE_UNPLUG_GUEST_ERROR":
				return fmt.Errorf("the guest refuses to let go of the device %s", id)
			}
		case <-ctx.Done():
			return fmt.Errorf("the guest has not let go of the device %s: %w", id, context.Cause(ctx))
		}
	}
}

// unplugPause is how long a guest that is busy with a device is left alone.
const unplugPause = 250 * time.Millisecond

// askToUnplug asks the guest once, as soon as it can be asked, and tells whether there is no such device.
func (c *Client) askToUnplug(ctx context.Context, id string) (gone bool, err error) {
	again := time.NewTicker(unplugPause)
	defer again.Stop()
	var busy error
	for {
		err := c.Execute(ctx, "device_del", map[string]any{"id": id}, nil)
		switch {
		case err == nil:
			return false, nil
		case IsClass(err, ClassDeviceNotFound):
			return true, nil
		case strings.Contains(err.Error(), "in the process of unplug"): // an earlier call asked already
			return false, nil
		case strings.Contains(err.Error(), "guest is busy"):
			busy = err
		case busy == nil || ctx.Err() == nil:
			return false, err
		}
		// A slot of PCI Express whose power indicator blinks: the guest is about to take what was just plugged in, which
		// takes it some seconds, and QEMU has no event for the end of that.
		select {
		case <-again.C:
		case <-ctx.Done():
			return false, fmt.Errorf("%w: %w", busy, context.Cause(ctx))
		}
	}
}
