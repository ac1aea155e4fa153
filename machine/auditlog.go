package machine

import (
	"context"
	"encoding/json"

	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/virtiofs/gate"
)

// AuditEntry is something that a guest did to a share, or was refused.
type AuditEntry struct {
	gate.Event
	// Share is the directory of the host.
	Share string `json:"share,omitempty"`
	// LeftOut says, of an entry that has nothing else but a time, how many are missing before the next one: the disk
	// was too slow for them.
	LeftOut uint64 `json:"leftOut,omitempty"`
}

// AuditLog calls emit for each entry of the log of what the guest did to its shares, the
// oldest first. With follow it goes on until the sandbox ends or ctx does. Shares without
// rules are not in it.
func (s *Sandbox) AuditLog(ctx context.Context, follow bool, emit func(AuditEntry) error) error {
	return s.readLog(ctx, layout.AuditLog, follow, func(line []byte) error {
		var e AuditEntry
		if err := json.Unmarshal(line, &e); err != nil {
			return nil // the last line of a supervisor that was killed
		}
		return emit(e)
	})
}
