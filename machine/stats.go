package machine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sourcery-zone/sandbox/internal/process"
	"github.com/sourcery-zone/sandbox/internal/tree"
	"github.com/sourcery-zone/sandbox/machine/api"
)

// Stats is what a sandbox takes of the machine at one moment.
type Stats struct {
	Sandbox    string          `json:"sandbox"`
	Status     Status          `json:"status"`
	Time       time.Time       `json:"time"`
	CPUSeconds float64         `json:"cpuSeconds"`          // of all its processes since the start
	CPUPercent float64         `json:"cpuPercent"`          // between the last two samples; 100 is one CPU of the host
	RSSBytes   int64           `json:"rssBytes"`            // sum over the processes: the guest's memory counts in each that maps it
	PSSBytes   int64           `json:"pssBytes,omitempty"`  // the same without counting twice; absent where the kernel does not say it of every process
	DiskBytes  int64           `json:"diskBytes"`           // that the sandbox's directory occupies: home, disk, logs
	Processes  []process.Stats `json:"processes,omitempty"` // supervisor, QEMU, file servers
	Quotas     []api.Quota     `json:"quotas,omitempty"`    // of shares and the home, while it runs
	Guest      *GuestStats     `json:"guest,omitempty"`     // nil when the guest could not be asked
	Problem    string          `json:"problem,omitempty"`   // why something is missing here
}

// GuestStats is what the guest says of itself. It can say what it likes.
type GuestStats struct {
	MemoryTotalBytes     int64 `json:"memoryTotalBytes"`
	MemoryAvailableBytes int64 `json:"memoryAvailableBytes"`
	BalloonBytes         int64 `json:"balloonBytes,omitempty"` // of the total, what Resize has taken away
	NetReceivedBytes     int64 `json:"netReceivedBytes"`
	NetSentBytes         int64 `json:"netSentBytes"`
}

// guestPatience is how long a guest may take to say how it is: one whose CPUs
// are all busy, or that is out of memory, must not hold up the others.
const guestPatience = 10 * time.Second

// Stats measures the sandbox now. CPUPercent is 0: it takes two samples, and
// Since computes it.
func (s *Sandbox) Stats(ctx context.Context) (Stats, error) {
	st := s.State()
	stats := Stats{Sandbox: s.Name, Status: st.Status, Time: time.Now()}
	var guest *GuestStats
	var taken int64
	var quotas api.Quotas
	var problems [3]error
	var group errgroup.Group
	group.Go(func() (err error) {
		stats.DiskBytes, err = tree.Used(s.Files().Dir())
		return err
	})
	if st.Status == StatusRunning {
		group.Go(func() error {
			guest, problems[0] = s.guestStats(ctx)
			return nil
		})
		group.Go(func() error {
			taken = s.balloonBytes(ctx)
			return nil
		})
		if c, err := s.Config(); err == nil && c.hasQuota() {
			group.Go(func() error {
				quotas, problems[2] = s.api().Quotas(ctx)
				return nil
			})
		}
	}
	if st.Live() && st.Identity != nil {
		stats.Processes, problems[1] = readTree(*st.Identity)
	}
	if err := group.Wait(); err != nil {
		return stats, fmt.Errorf("measuring %s: %w", s.Files().Dir(), err)
	}
	stats.Quotas = quotas.Quotas
	if stats.Guest = guest; guest != nil {
		guest.BalloonBytes = taken
	}
	if err := errors.Join(problems[:]...); err != nil {
		stats.Problem = err.Error()
	}
	stats.sum()
	return stats, ctx.Err()
}

// readTree reads the supervisor and everything that it started.
func readTree(supervisor process.Identity) ([]process.Stats, error) {
	p, err := process.Open(supervisor)
	if err != nil {
		return nil, fmt.Errorf("the supervisor: %w", err)
	}
	defer p.Close()
	var all []process.Stats
	for _, pid := range process.Descendants(supervisor.PID) {
		one, err := process.ReadStats(pid)
		if err != nil { // it has just ended
			continue
		}
		if pid == supervisor.PID && one.PSSBytes == 0 {
			one.PSSBytes = one.RSSBytes // it lets nobody look, and has nothing in common with others
		}
		all = append(all, one)
	}
	return all, nil
}

func (t *Stats) sum() {
	complete := true
	for _, p := range t.Processes {
		t.CPUSeconds += p.CPUSeconds
		t.RSSBytes += p.RSSBytes
		t.PSSBytes += p.PSSBytes
		complete = complete && (p.PSSBytes > 0 || p.RSSBytes == 0)
	}
	if !complete {
		t.PSSBytes = 0
	}
}

// Since completes t with what an earlier sample of the same sandbox tells.
func (t Stats) Since(earlier Stats) Stats {
	before := map[int]float64{}
	for _, p := range earlier.Processes {
		before[p.PID] = p.CPUSeconds
	}
	var used float64
	for _, p := range t.Processes {
		used += max(p.CPUSeconds-before[p.PID], 0) // a new one began at nothing
	}
	if passed := t.Time.Sub(earlier.Time).Seconds(); passed > 0 {
		t.CPUPercent = 100 * used / passed
	}
	return t
}

func (s *Sandbox) guestStats(ctx context.Context) (*GuestStats, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, guestPatience, fmt.Errorf("it did not answer within %v", guestPatience))
	defer cancel()
	client, err := s.Dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking the guest: %w", err)
	}
	defer client.Close()
	var memory, network []byte
	for file, out := range map[string]*[]byte{"/proc/meminfo": &memory, "/proc/net/dev": &network} {
		cat := client.Command(ctx, "cat", file)
		cat.Dir = "/"
		if *out, err = cat.Output(); err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return nil, fmt.Errorf("asking the guest for its %s: %w", file, err)
		}
	}
	g := &GuestStats{
		MemoryTotalBytes:     process.Kibibytes(memory, "MemTotal:"),
		MemoryAvailableBytes: process.Kibibytes(memory, "MemAvailable:"),
	}
	g.NetReceivedBytes, g.NetSentBytes = netBytes(network)
	return g, nil
}

// netBytes sums up what a /proc/net/dev says was received and sent, except on
// the loopback interface.
func netBytes(file []byte) (received, sent int64) {
	for line := range strings.Lines(string(file)) {
		name, rest, ok := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		const rx, tx = 0, 8 // columns, counted from the interface's name
		if !ok || strings.TrimSpace(name) == "lo" || len(fields) <= tx {
			continue
		}
		r, errR := strconv.ParseInt(fields[rx], 10, 64)
		t, errT := strconv.ParseInt(fields[tx], 10, 64)
		if errR == nil && errT == nil {
			received, sent = received+r, sent+t
		}
	}
	return received, sent
}
