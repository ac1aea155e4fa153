package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

// supervisorCost is what a running sandbox that nobody uses takes of the host.
func supervisorCost(ctx context.Context, b *bench) ([]figure, error) {
	const name = "idle"
	state, err := b.startRunning(ctx, name)
	if err != nil {
		return nil, err
	}
	defer b.remove(name)
	// One command, so that the supervisor has done what it is there for.
	if _, err := b.run(ctx, nil, "exec", name, "true"); err != nil {
		return nil, err
	}
	pids := map[string]int{"supervisor": state.Supervisor, "qemu": state.QEMU}
	spent := map[string]time.Duration{}
	for who, pid := range pids {
		if spent[who], err = processorTime(pid); err != nil {
			return nil, err
		}
	}
	start := time.Now()
	select {
	case <-time.After(b.idle):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	watched := time.Since(start)
	for who, pid := range pids {
		now, err := processorTime(pid)
		if err != nil {
			return nil, err
		}
		spent[who] = time.Duration(float64(now-spent[who]) / watched.Minutes())
	}
	rss, pss, err := memory(state.Supervisor)
	if err != nil {
		return nil, err
	}
	return []figure{
		figure{Name: "supervisor-rss", Unit: "MiB", Value: mebibytes(rss), detail: "resident, pages shared with others counted in full"}.with(30),
		{Name: "supervisor-pss", Unit: "MiB", Value: mebibytes(pss), detail: "resident, shared pages divided among their users"},
		{
			Name: "idle-cpu", Unit: "s/min", Value: (spent["supervisor"] + spent["qemu"]).Seconds(),
			detail: fmt.Sprintf("supervisor %s, QEMU %s, over %s", short(spent["supervisor"]), short(spent["qemu"]), watched.Round(time.Second)),
		},
	}, nil
}

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }

// memory returns a process's resident set, and its share of it, in bytes.
func memory(pid int) (rss, pss int64, err error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	return parseRollup(f)
}

// parseRollup reads proc_pid_smaps(5).
func parseRollup(r io.Reader) (rss, pss int64, err error) {
	for s := bufio.NewScanner(r); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) != 3 || fields[2] != "kB" {
			continue
		}
		n, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return 0, 0, err
		}
		switch fields[0] {
		case "Rss:":
			rss = n << 10
		case "Pss:":
			pss = n << 10
		}
	}
	if rss == 0 {
		return 0, 0, errors.New("the kernel does not tell the process's memory")
	}
	return rss, pss, nil
}

// clockTick is the unit of proc_pid_stat(5), fixed in Linux's interface.
const clockTick = time.Second / 100

// processorTime is what a process has used of the processors, its threads
// included.
func processorTime(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseStat(string(data))
}

func parseStat(line string) (time.Duration, error) {
	// The second field is a name that may hold anything, in parentheses.
	fields := strings.Fields(line[strings.LastIndexByte(line, ')')+1:])
	const user, system = 14 - 3, 15 - 3 // numbered from 1, and two are cut off
	if len(fields) <= system {
		return 0, fmt.Errorf("%q is no line of /proc/PID/stat", line)
	}
	var ticks int64
	for _, i := range []int{user, system} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}
