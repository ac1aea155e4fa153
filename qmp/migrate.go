package qmp

import (
	"context"
	"fmt"
	"math"
	"net"
	"os"
	"time"
)

// The statuses of a migration at which it is over.
const (
	migrationCompleted = "completed"
	migrationFailed    = "failed"
	migrationCancelled = "cancelled"
)

// stateOffset is where a state begins in its file. QEMU cuts the file off there before it writes, and ext4
// sends a file that was cut off at 0 to the disk when it is closed (auto_da_alloc), for which the machine would
// stand still: measured, 0.2 s for 400 MiB.
const stateOffset = 4096

// SaveState writes the memory and the state of all devices of a stopped machine to file, which must be
// open for writing only. Memory lands at a fixed place (QEMU's mapped-ram, since 9.0), so a page that is
// zero takes no space. Afterwards the machine is in StatePostMigrate with its disks let go of, until Cont;
// what Drives are backed by can be copied until then.
func (c *Client) SaveState(ctx context.Context, file *os.File) error {
	return c.migrate(ctx, "migrate", file)
}

// LoadState gives a machine that was started to wait for it the state that SaveState wrote to file, which
// must be open for reading only. The machine must be made of the same parts as the one that was saved. It
// is stopped until Cont.
func (c *Client) LoadState(ctx context.Context, file *os.File) error {
	return c.migrate(ctx, "migrate-incoming", file)
}

func (c *Client) migrate(ctx context.Context, command string, file *os.File) error {
	type capability struct {
		Capability string `json:"capability"`
		State      bool   `json:"state"`
	}
	err := c.Execute(ctx, "migrate-set-capabilities", map[string]any{"capabilities": []capability{{"mapped-ram", true}, {"events", true}}}, nil)
	if err != nil {
		return err
	}
	// The default is made for networks: 1 Gbit/s.
	if err := c.Execute(ctx, "migrate-set-parameters", map[string]any{"max-bandwidth": int64(math.MaxInt64)}, nil); err != nil {
		return err
	}
	set, err := c.addFile(ctx, file)
	if err != nil {
		return err
	}
	err = c.migrateTo(ctx, command, fmt.Sprintf("file:/dev/fdset/%d,offset=%d", set, stateOffset))
	// QEMU must let go of a file that failed, too: it would take its space.
	left := c.Execute(ctx, "remove-fd", map[string]any{"fdset-id": set}, nil)
	if err != nil {
		return err // of which left may be only a consequence
	}
	return left
}

func (c *Client) migrateTo(ctx context.Context, command, uri string) error {
	listening, stop := context.WithCancel(ctx)
	defer stop()
	events, err := c.Events(listening)
	if err != nil {
		return err
	}
	if err := c.Execute(ctx, command, map[string]any{"uri": uri}, nil); err != nil {
		return err
	}
	if err := c.awaitMigration(ctx, events); err != nil {
		_ = c.awaitSettled(ctx) // a machine that has ended over it will not
		return err
	}
	return c.awaitSettled(ctx)
}

// awaitMigration returns when the migration is over.
func (c *Client) awaitMigration(ctx context.Context, events <-chan Event) error {
	for e := range events {
		if e.Event != "MIGRATION" {
			continue
		}
		switch e.Data["status"] {
		case migrationCompleted:
			return nil
		case migrationFailed, migrationCancelled:
			return c.migrationError(ctx)
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("the machine ended before its state was moved: %w", c.Err())
}

// settlePause is the pause between two looks for a state that no event tells of, and which lasts for less.
const settlePause = time.Millisecond

// awaitSettled returns when the machine has left the state in which its processors must not be told to go
// on. It enters and leaves that at the end of a migration, after the last event.
func (c *Client) awaitSettled(ctx context.Context) error {
	for {
		s, err := c.Status(ctx)
		if err != nil || s.State != StateFinishMigrate {
			return err
		}
		select {
		case <-time.After(settlePause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// migrationError is QEMU's own word for what went wrong.
func (c *Client) migrationError(ctx context.Context) error {
	var migration struct {
		Status string `json:"status"`
		Desc   string `json:"error-desc"`
	}
	if err := c.Execute(ctx, "query-migrate", nil, &migration); err != nil {
		return fmt.Errorf("moving the machine's state failed, and QEMU does not say why: %w", err)
	}
	return fmt.Errorf("moving the machine's state %s: %s", migration.Status, migration.Desc)
}

// MigrationBlockers are the reasons, in QEMU's words, why the machine's state can not be saved now.
func (c *Client) MigrationBlockers(ctx context.Context) ([]string, error) {
	var migration struct {
		Blocked []string `json:"blocked-reasons"`
	}
	err := c.Execute(ctx, "query-migrate", nil, &migration)
	return migration.Blocked, err
}

// addFile gives QEMU a descriptor of the file, which it can then open as /dev/fdset/N.
func (c *Client) addFile(ctx context.Context, file *os.File) (set int, err error) {
	var added struct {
		Set int `json:"fdset-id"`
	}
	if err := c.usable("add-fd"); err != nil {
		return 0, err
	}
	if _, ok := c.transport.conn.(*net.UnixConn); !ok {
		return 0, fmt.Errorf("a file cannot be passed to a monitor over a connection of type %T, but only over a unix socket", c.transport.conn)
	}
	err = c.executeWith(ctx, "add-fd", nil, &added, file)
	return added.Set, err
}
