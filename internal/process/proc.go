package process

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

// Stats is what one process of a sandbox takes at one moment.
type Stats struct {
	Name       string  `json:"name"`
	PID        int     `json:"pid"`
	CPUSeconds float64 `json:"cpuSeconds"` // since its start
	RSSBytes   int64   `json:"rssBytes"`   // resident memory; what is shared counts in full in each process
	PSSBytes   int64   `json:"pssBytes"`   // the same, with shared memory divided among its users; 0 where the kernel does not say
}

// ReadStats reads the process pid.
func ReadStats(pid int) (Stats, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Stats{}, err
	}
	p, err := parseStat(stat)
	if err != nil {
		return p, err
	}
	p.PID = pid
	// Not readable for a process that changed its user: then PSS is unknown.
	if rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid)); err == nil {
		p.PSSBytes = Kibibytes(rollup, "Pss:")
	}
	return p, nil
}

// parseStat reads name, CPU time and resident memory from /proc/PID/stat.
func parseStat(stat []byte) (Stats, error) {
	fields, err := statFields(stat)
	if err != nil {
		return Stats{}, err
	}
	var numbers [3]int64
	for i, number := range []int{14, 15, 24} { // utime, stime, rss: proc(5)
		if numbers[i], err = strconv.ParseInt(fields[number-firstStatField], 10, 64); err != nil {
			return Stats{}, fmt.Errorf("field %d of /proc/PID/stat: %w", number, err)
		}
	}
	_, name, _ := strings.Cut(string(stat[:bytes.LastIndexByte(stat, ')')]), "(")
	return Stats{
		Name:       name,
		CPUSeconds: float64(numbers[0]+numbers[1]) / ticksPerSecond,
		RSSBytes:   numbers[2] * int64(os.Getpagesize()),
	}, nil
}

// Kibibytes reads a line such as "Pss:  123 kB", as they stand in
// /proc/meminfo and /proc/PID/smaps_rollup, and returns bytes.
func Kibibytes(file []byte, name string) int64 {
	for line := range strings.Lines(string(file)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == name && fields[2] == "kB" {
			n, _ := strconv.ParseInt(fields[1], 10, 64)
			return n << 10
		}
	}
	return 0
}

// Descendants lists pid and all that it started, and those started.
func Descendants(pid int) []int {
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
