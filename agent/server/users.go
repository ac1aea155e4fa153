//go:build linux

package server

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// User is an account that processes can be started for.
type User struct {
	Name        string
	UID, GID    int
	Groups      []int // supplementary ones
	Home, Shell string
}

// Users finds accounts.
type Users interface {
	// Lookup finds a user by name; the empty name means the default one.
	Lookup(name string) (User, error)
}

// Accounts are the accounts of a root file system, read afresh at each
// lookup: the user may add some while the guest runs.
type Accounts struct {
	// Etc is the directory that holds passwd and group.
	Etc string
	// Default is the image's own user. What is said here about it counts,
	// whatever passwd says; its groups are those of the file.
	Default User
}

// Lookup implements [Users].
func (u Accounts) Lookup(name string) (User, error) {
	user := u.Default
	if name != "" && name != u.Default.Name {
		passwd, err := os.ReadFile(filepath.Join(u.Etc, "passwd"))
		if err != nil {
			return User{}, fmt.Errorf("cannot look up the user %q: %w", name, err)
		}
		found, ok := findUser(string(passwd), name)
		if !ok {
			return User{}, fmt.Errorf("the guest has no user named %q", name)
		}
		user = found
	}
	// Without a group file the user simply has no further groups.
	group, _ := os.ReadFile(filepath.Join(u.Etc, "group"))
	user.Groups = groupsOf(string(group), user.Name, user.GID)
	return user, nil
}

// findUser finds a line of passwd(5).
func findUser(passwd, name string) (User, bool) {
	for line := range strings.Lines(passwd) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(fields) != 7 || fields[0] != name {
			continue
		}
		uid, errUID := strconv.Atoi(fields[2])
		gid, errGID := strconv.Atoi(fields[3])
		if errUID != nil || errGID != nil {
			continue
		}
		user := User{Name: name, UID: uid, GID: gid, Home: fields[5], Shell: fields[6]}
		if user.Shell == "" {
			user.Shell = "/bin/sh" // as passwd(5) has it
		}
		return user, true
	}
	return User{}, false
}

// FindGroup returns the number of a group by the text of group(5).
func FindGroup(group, name string) (gid int, ok bool) {
	for line := range strings.Lines(group) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(fields) != 4 || fields[0] != name {
			continue
		}
		if gid, err := strconv.Atoi(fields[2]); err == nil {
			return gid, true
		}
	}
	return 0, false
}

// groupsOf returns the groups that group(5) lists a user in, and the user's
// primary one, which the kernel does not add by itself.
func groupsOf(group, name string, primary int) []int {
	groups := []int{primary}
	for line := range strings.Lines(group) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(fields) != 4 {
			continue
		}
		gid, err := strconv.Atoi(fields[2])
		if err != nil || slices.Contains(groups, gid) {
			continue
		}
		if slices.Contains(strings.Split(fields[3], ","), name) {
			groups = append(groups, gid)
		}
	}
	return groups
}
