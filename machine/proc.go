package machine

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ticksPerSecond is USER_HZ, the unit of times in /proc/PID/stat. It is part of
// Linux' interface and 100 on every architecture that sandbox knows.
const ticksPerSecond = 100

// ProcessStats is what one process of a sandbox takes at one moment.
type ProcessStats struct {
	Name       string  `json:"name"`
	PID        int     `json:"pid"`
	CPUSeconds float64 `json:"cpuSeconds"` // since its start
	RSSBytes   int64   `json:"rssBytes"`   // resident memory; what is shared counts in full in each process
	PSSBytes   int64   `json:"pssBytes"`   // the same, with shared memory divided among its users; 0 where the kernel does not say
}

// readProcess reads the process pid.
func readProcess(pid int) (ProcessStats, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ProcessStats{}, err
	}
	p, err := parseStat(stat)
	if err != nil {
		return p, err
	}
	p.PID = pid
	// Not readable for a process that changed its user: then PSS is unknown.
	if rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid)); err == nil {
		p.PSSBytes = kibibytes(rollup, "Pss:")
	}
	return p, nil
}

// parseStat reads name, CPU time and resident memory from /proc/PID/stat.
func parseStat(stat []byte) (ProcessStats, error) {
	fields, err := statFields(stat)
	if err != nil {
		return ProcessStats{}, err
	}
	var numbers [3]int64
	for i, number := range []int{14, 15, 24} { // utime, stime, rss: proc(5)
		if numbers[i], err = strconv.ParseInt(fields[number-firstStatField], 10, 64); err != nil {
			return ProcessStats{}, fmt.Errorf("field %d of /proc/PID/stat: %w", number, err)
		}
	}
	_, name, _ := strings.Cut(string(stat[:bytes.LastIndexByte(stat, ')')]), "(")
	return ProcessStats{
		Name:       name,
		CPUSeconds: float64(numbers[0]+numbers[1]) / ticksPerSecond,
		RSSBytes:   numbers[2] * int64(os.Getpagesize()),
	}, nil
}

// kibibytes reads a line such as "Pss:  123 kB", as they stand in
// /proc/meminfo and /proc/PID/smaps_rollup, and returns bytes.
func kibibytes(file []byte, name string) int64 {
	for line := range strings.Lines(string(file)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == name && fields[2] == "kB" {
			n, _ := strconv.ParseInt(fields[1], 10, 64)
			return n << 10
		}
	}
	return 0
}

// descendants lists pid and all that it started, and those started.
func descendants(pid int) []int {
	pids := []int{pid}
	for i := 0; i < len(pids); i++ {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[i]))
		for _, file := range files {
			list, _ := os.ReadFile(file) // it may have ended meanwhile
			for field := range strings.FieldsSeq(string(list)) {
				if child, err := strconv.Atoi(field); err == nil {
					pids = append(pids, child)
				}
			}
		}
	}
	return pids
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
