package supervisor

import (
	"context"
	"errors"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
)

const (
	// forgetInterval is how soon it is noticed that a guest knows many files of a share, of which it knows some already. One
	// with a processor of its own looks up some ten thousands in a second.
	forgetInterval = time.Second
	// calmInterval is the same for one that knows few.
	calmInterval = 5 * time.Second
	// forgetTimeout is when a guest that does not answer is asked anew.
	forgetTimeout = time.Minute
)

// forgetFiles has the guest forget files before a file server can open no more of them, until the sandbox ends. The guest's
// kernel does so by itself only when it needs the memory, and before that each of its programs fails that looks at
// something new in the share.
func (v *supervisor) forgetFiles(ctx context.Context) {
	left := map[int]int{} // of each server, by its process: what was still open after the last time
	pause := calmInterval
	for {
		select {
		case <-v.done:
			return
		case <-time.After(pause):
		}
		many, calm := v.manyOpen(left)
		if pause = forgetInterval; calm {
			pause = calmInterval
		}
		if len(many) == 0 || v.paused.Load() {
			continue
		}
		asking, cancel := context.WithTimeout(ctx, forgetTimeout)
		client := v.agentClient()
		err := client.Require(asking, agent.FeatureForget)
		if err == nil {
			err = client.Forget(asking)
		}
		cancel()
		if errors.Is(err, errors.ErrUnsupported) {
			v.log.Warn("programs in the guest will get no more files of a share once they have looked at too many", "err", err)
			return
		}
		if err != nil {
			v.log.Warn("the guest could not be made to forget files", "err", err)
			continue
		}
		for _, server := range many {
			left[server.PID()], _, _ = server.OpenFiles()
		}
	}
}

// manyOpen returns the file servers that have opened half of what they can besides what was left the last time, which
// programs in the guest use. Calm tells that none has opened an eighth of that.
func (v *supervisor) manyOpen(left map[int]int) (many []fileServer, calm bool) {
	calm = true
	for _, server := range v.currentServers() {
		open, limit, err := server.OpenFiles()
		if err != nil { // it has ended, or is not to be seen
			continue
		}
		before := min(left[server.PID()], open) // what is forgotten is closed a moment later
		left[server.PID()] = before
		room := limit - before
		calm = calm && open-before < room/8
		if open-before > room/2 {
			many = append(many, server)
		}
	}
	return many, calm
}
