package qmp

import (
	"context"
	"fmt"
	"math"
	"net"
	"os"
	"strings"
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

// Memory says how a machine's state is moved. The same must be said when it is saved and when it is loaded.
type Memory bool

const (
	// MemoryInState is for memory that only QEMU sees: it becomes a part of the state.
	MemoryInState Memory = true

	// MemoryApart leaves out memory that is a shared mapping of a file (memory-backend-file with share=on). It
	// is the caller's to copy while the machine stands still, and to put there before the machine goes on: which
	// costs QEMU nothing, and no more than what the guest has touched. What is left is less than a MiB.
	MemoryApart Memory = false
)

// SaveState writes the state of all devices of a stopped machine to file, which must be open for writing
// only, with or without the memory. Afterwards the machine is in StatePostMigrate, until Cont. It needs QEMU
// 8.2, for its migration to files.
func (c *Client) SaveState(ctx context.Context, file *os.File, memory Memory) error {
	return c.migrate(ctx, "migrate", file, memory)
}

// LoadState gives a machine that was started to wait for it the state that SaveState wrote to file, which
// must be open for reading only. The machine must be made of the same parts as the one that was saved. It
// is stopped until Cont.
func (c *Client) LoadState(ctx context.Context, file *os.File, memory Memory) error {
	return c.migrate(ctx, "migrate-incoming", file, memory)
}

func (c *Client) migrate(ctx context.Context, command string, file *os.File, memory Memory) (err error) {
	if err := c.setMigration(ctx, memory); err != nil {
		return err
	}
	// QEMU's own snapshots would lack the memory, too.
	defer func() {
		longer, cancel := lingering(ctx, cancelTimeout)
		defer cancel()
		if back := c.setMigration(longer, MemoryInState); err == nil {
			err = back
		}
	}()
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

// setMigration says how QEMU moves its state from now on.
func (c *Client) setMigration(ctx context.Context, memory Memory) error {
	type capability struct {
		Capability string `json:"capability"`
		State      bool   `json:"state"`
	}
	return c.Execute(ctx, "migrate-set-capabilities", map[string]any{
		"capabilities": []capability{{"x-ignore-shared", memory == MemoryApart}, {"events", true}},
	}, nil)
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
	err = c.passFile(ctx, "add-fd", nil, &added, file)
	return added.Set, err
}

// passFile runs one of the commands that come with a descriptor.
func (c *Client) passFile(ctx context.Context, command string, args, result any, file *os.File) error {
	if err := c.usable(command); err != nil {
		return err
	}
	if _, ok := c.transport.conn.(*net.UnixConn); !ok {
		return fmt.Errorf("a file cannot be passed to a monitor over a connection of type %T, but only over a unix socket", c.transport.conn)
	}
	return c.executeWith(ctx, command, args, result, file)
}

// SnapshotDrive makes the machine write what it would write to the drive from now on to file instead, an empty
// qcow2 image that shows what the drive's own image shows. That is not changed any more, so it is a snapshot of
// the drive; for one that fits other state, the machine must be stopped. drive is the id of a device of
// -device, node a name for the new layer that no other has. The caller keeps file, which must be open for
// reading and writing, and may close it.
func (c *Client) SnapshotDrive(ctx context.Context, drive, node string, file *os.File) error {
	top, err := c.driveNode(ctx, drive)
	if err != nil {
		return err
	}
	set, err := c.addFile(ctx, file)
	if err != nil {
		return err
	}
	err = c.Execute(ctx, "blockdev-add", map[string]any{
		"driver": "qcow2", "node-name": node, "backing": nil, "discard": "unmap", "detect-zeroes": "unmap",
		"file": map[string]any{
			"driver": "file", "node-name": node + "-file", "filename": fmt.Sprintf("/dev/fdset/%d", set),
			"aio": "threads", "locking": "on", "discard": "unmap",
		},
	}, nil)
	if err == nil {
		if err = c.Execute(ctx, "blockdev-snapshot", map[string]any{"node": top, "overlay": node}, nil); err != nil {
			_ = c.Execute(ctx, "blockdev-del", map[string]any{"node-name": node}, nil) // err says what matters
		}
	}
	if err != nil {
		_ = c.Execute(ctx, "remove-fd", map[string]any{"fdset-id": set}, nil)
	}
	return err
}

// driveNode returns the name of a drive's uppermost layer.
func (c *Client) driveNode(ctx context.Context, drive string) (string, error) {
	var drives []struct {
		Device   string `json:"qdev"`
		Inserted *struct {
			Node string `json:"node-name"`
		} `json:"inserted"`
	}
	if err := c.Execute(ctx, "query-block", nil, &drives); err != nil {
		return "", err
	}
	for _, d := range drives {
		// A device's own name, or the path of a part of it such as /machine/peripheral/ID/virtio-backend.
		if d.Inserted != nil && (d.Device == drive || strings.Contains(d.Device, "/"+drive+"/")) {
			return d.Inserted.Node, nil
		}
	}
	return "", fmt.Errorf("the machine has no drive %q", drive)
}
