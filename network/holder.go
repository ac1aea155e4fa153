package network

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// findHolder names the process that has opened f's port, or returns "" if that cannot be seen, as with
// processes of other users.
func findHolder(f Forward) string {
	for _, version := range []string{"", "6"} {
		table, err := os.ReadFile("/proc/net/" + f.Proto + version)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(table)) {
			if inode := listeningInode(line, f); inode != "" {
				if holder := processWithSocket(inode); holder != "" {
					return holder
				}
			}
		}
	}
	return ""
}

// listeningInode returns the inode of the socket that a line of /proc/net/tcp or /proc/net/udp (proc(5))
// describes, if it stands in the way of f.
func listeningInode(line string, f Forward) string {
	const localAddress, state, inode, columns = 1, 3, 9, 10
	const listening = "0A"
	column := strings.Fields(line)
	if len(column) < columns || f.Proto == TCP && column[state] != listening {
		return ""
	}
	address, port, _ := strings.Cut(column[localAddress], ":")
	if n, err := strconv.ParseUint(port, 16, 16); err != nil || int(n) != f.HostPort {
		return ""
	}
	b, err := hex.DecodeString(address)
	if err != nil || len(b)%4 != 0 {
		return ""
	}
	for word := range slices.Chunk(b, 4) {
		slices.Reverse(word) // each word is printed as a number of a little-endian machine
	}
	if ip, ok := netip.AddrFromSlice(b); !ok || !overlap(ip.Unmap(), f.HostIP) {
		return ""
	}
	return column[inode]
}

func processWithSocket(inode string) string {
	descriptors, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return ""
	}
	for _, descriptor := range descriptors {
		if target, err := os.Readlink(descriptor); err != nil || target != "socket:["+inode+"]" {
			continue
		}
		process := filepath.Dir(filepath.Dir(descriptor))
		name, err := os.ReadFile(filepath.Join(process, "comm"))
		if err != nil {
			return ""
		}
		return fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(name)), filepath.Base(process))
	}
	return ""
}
