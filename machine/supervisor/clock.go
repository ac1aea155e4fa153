package supervisor

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
)

const (
	// clockInterval is the pause between two looks at the guest's clock, which
	// drifts by up to half a millisecond in each second, as ours may do.
	clockInterval = time.Minute

	// clockTimeout bounds one look; a guest that stands still has its clock
	// set when it goes on.
	clockTimeout = 10 * time.Second
)

// keepClock keeps the guest's clock right while the guest lives.
func (v *supervisor) keepClock(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go v.cancelWhenDead(ctx, cancel)
	ticker := time.NewTicker(clockInterval)
	defer ticker.Stop()
	for {
		// The first time at once: while the guest booted, its answers took
		// their time, and by that much its clock may be ahead.
		if !v.paused.Load() {
			look, cancel := context.WithTimeout(ctx, clockTimeout)
			if err := v.syncClock(look); err != nil && ctx.Err() == nil {
				v.log.Warn("the guest's clock may be wrong", "err", err)
			}
			cancel()
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (v *supervisor) syncClock(ctx context.Context) error {
	by, err := v.agentClient().SyncClock(ctx)
	if by != 0 {
		v.log.Info("the guest's clock was set", "advanced", by)
	}
	return v.explainOldAgent(err)
}

// maxZone is more than any file of the tz database has.
const maxZone = 64 << 10

var zoneName = regexp.MustCompile(`^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$`)

// timeZone is the time zone of a file system's root in which TZ has the given
// value: that one, or else the one of /etc/localtime (localtime(5)). It is
// none if that cannot be learnt; then the guest keeps its own.
func timeZone(root, tz string) agent.TimeZone {
	name := strings.TrimPrefix(tz, ":")
	if _, after, ok := strings.Cut(name, "/zoneinfo/"); ok {
		name = after
	}
	if zoneName.MatchString(name) {
		for _, dir := range []string{"/usr/share/zoneinfo", "/etc/zoneinfo"} {
			if data := readZone(filepath.Join(root, dir, name)); data != nil {
				return agent.TimeZone{Name: name, Data: data}
			}
		}
	}
	local := filepath.Join(root, "/etc/localtime")
	data := readZone(local)
	if data == nil {
		return agent.TimeZone{}
	}
	link, _ := os.Readlink(local) // a file has no name
	if _, name, _ = strings.Cut(link, "/zoneinfo/"); !zoneName.MatchString(name) {
		text, _ := os.ReadFile(filepath.Join(root, "/etc/timezone")) // Debian's, if any
		if name = strings.TrimSpace(string(text)); !zoneName.MatchString(name) {
			name = ""
		}
	}
	return agent.TimeZone{Name: name, Data: data}
}

// readZone reads a file of tzfile(5), or returns nil.
func readZone(path string) []byte {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxZone {
		return nil
	}
	data, err := os.ReadFile(path)
	if err != nil || !strings.HasPrefix(string(data), "TZif") {
		return nil
	}
	return data
}
