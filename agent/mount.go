package agent

import (
	"context"
	"fmt"
	"strings"

	"github.com/sourcery-zone/sandbox/agent/internal/wire"
)

const (
	// MaxUsers bounds the processes, and the mounts, that [Users] names; others are left out.
	MaxUsers = 16

	// maxUser bounds a text of [Users], in characters.
	maxUser = 100
)

// Users are who keeps a share of the guest from being unmounted. Without any, it is unmounted.
type Users struct {
	// Busy says that it is still mounted. It may be by what no process shows, such as a loop device.
	Busy bool `json:"busy,omitempty"`
	// Processes have something of it open.
	Processes []User `json:"processes,omitempty"`
	// Mounts are the mount points within it.
	Mounts []string `json:"mounts,omitempty"`
	// More says that there are others.
	More bool `json:"more,omitempty"`
}

// User is a process that uses a share.
type User struct {
	PID     int    `json:"pid"`
	Command string `json:"command"` // its command line, or its name
	Uses    string `json:"uses"`    // as what, such as "working directory"
}

// BusyError says why a share was not unmounted.
type BusyError struct {
	Target string
	Users  Users
}

func (e *BusyError) Error() string {
	var who []string
	for _, p := range e.Users.Processes {
		who = append(who, fmt.Sprintf("process %d (%s) has its %s there", p.PID, p.Command, p.Uses))
	}
	for _, m := range e.Users.Mounts {
		who = append(who, "something is mounted on "+m)
	}
	switch {
	case len(who) == 0:
		who = append(who, "which of them is not to be seen")
	case e.Users.More:
		who = append(who, "and there are more")
	}
	return fmt.Sprintf("%s is in use in the guest: %s", e.Target, strings.Join(who, ", "))
}

// Mount mounts a share in a guest that runs, once its device is there: the guest needs [FeatureHotPlug]. No other has,
// or has had, the tag.
func (c *Client) Mount(ctx context.Context, mount Mount) error {
	if err := c.call(ctx, wire.MethodMount, mount, nil); err != nil {
		return fmt.Errorf("the guest could not mount %s: %w", mount.Target, err)
	}
	return nil
}

// Unmount unmounts a share in a guest that runs, if it is mounted. One that is in use is a [*BusyError], unless force
// is set: then those who use it lose it when its device goes.
func (c *Client) Unmount(ctx context.Context, mount Mount, force bool) error {
	var users Users
	if err := c.call(ctx, wire.MethodUnmount, wire.UnmountParams{Tag: mount.Tag, Force: force}, &users); err != nil {
		return fmt.Errorf("the guest could not unmount %s: %w", mount.Target, err)
	}
	if users.Busy {
		return &BusyError{mount.Target, users.bounded()}
	}
	return nil
}

// bounded is what a guest says without what no person could read.
func (u Users) bounded() Users {
	u.More = u.More || len(u.Processes) > MaxUsers || len(u.Mounts) > MaxUsers
	u.Processes, u.Mounts = u.Processes[:min(len(u.Processes), MaxUsers)], u.Mounts[:min(len(u.Mounts), MaxUsers)]
	for i := range u.Processes {
		p := &u.Processes[i]
		p.Command, p.Uses = printable(p.Command, maxUser), printable(p.Uses, maxUser)
	}
	for i := range u.Mounts {
		u.Mounts[i] = printable(u.Mounts[i], maxUser)
	}
	return u
}
