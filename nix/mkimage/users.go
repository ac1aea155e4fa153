package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// accounts are the users and groups of the configuration (nix/guest/etc.nix),
// each list in the order of their names.
type accounts struct {
	Users  []user  `json:"users"`
	Groups []group `json:"groups"`
}

type user struct {
	Name         string  `json:"name"`
	UID          *int    `json:"uid"` // nil: any that is free
	Group        string  `json:"group"`
	Description  string  `json:"description"`
	Home         string  `json:"home"`
	HomeMode     string  `json:"homeMode"` // octal
	CreateHome   bool    `json:"createHome"`
	System       bool    `json:"isSystemUser"`
	Shell        *string `json:"shell"`
	Password     *string `json:"hashedPassword"`
	Expires      *string `json:"expires"` // a date
	AutoSubIDs   bool    `json:"autoSubUidGidRange"`
	SubUIDRanges []struct {
		Start int `json:"startUid"`
		Count int `json:"count"`
	} `json:"subUidRanges"`
	SubGIDRanges []struct {
		Start int `json:"startGid"`
		Count int `json:"count"`
	} `json:"subGidRanges"`

	gid int
}

type group struct {
	Name    string   `json:"name"`
	GID     *int     `json:"gid"` // nil: any that is free
	Members []string `json:"members"`
}

// What NixOS's update-users-groups.pl gives to those that ask for no number.
const (
	firstSystemID, lastSystemID = 400, 999
	firstUserID, lastUserID     = 1000, 29999
	firstSubID, subIDCount      = 100000, 1 << 16
)

// nologin is the shell of users without one.
const nologin = "/run/current-system/sw/bin/nologin"

// number gives everybody the number that NixOS's update-users-groups.pl gives
// on a system that has nobody yet, and sorts by it.
func (a *accounts) number() error {
	used := map[int]bool{}
	for _, g := range a.Groups {
		if g.GID != nil {
			used[*g.GID] = true
		}
	}
	for i := range a.Groups {
		if g := &a.Groups[i]; g.GID == nil {
			id, err := freeID(used, lastSystemID, firstSystemID)
			if err != nil {
				return fmt.Errorf("the group %s: %w", g.Name, err)
			}
			g.GID = &id
		}
	}
	used = map[int]bool{}
	for _, u := range a.Users {
		if u.UID != nil {
			used[*u.UID] = true
		}
	}
	for i := range a.Users {
		u := &a.Users[i]
		var err error
		if u.gid, err = a.gid(u.Group); err != nil {
			return fmt.Errorf("the user %s: %w", u.Name, err)
		}
		if u.UID != nil {
			continue
		}
		from, to := firstUserID, lastUserID
		if u.System {
			from, to = lastSystemID, firstSystemID
		}
		id, err := freeID(used, from, to)
		if err != nil {
			return fmt.Errorf("the user %s: %w", u.Name, err)
		}
		u.UID = &id
	}
	slices.SortStableFunc(a.Groups, func(a, b group) int { return cmp.Compare(*a.GID, *b.GID) })
	slices.SortStableFunc(a.Users, func(a, b user) int { return cmp.Compare(*a.UID, *b.UID) })
	return nil
}

// freeID takes the first number on the way from one to another.
func freeID(used map[int]bool, from, to int) (int, error) {
	step := cmp.Compare(to, from)
	for id := from; id != to+step; id += step {
		if !used[id] {
			used[id] = true
			return id, nil
		}
	}
	return 0, fmt.Errorf("no number from %d to %d is free", min(from, to), max(from, to))
}

func (a *accounts) gid(name string) (int, error) {
	for _, g := range a.Groups {
		if g.Name == name {
			return *g.GID, nil
		}
	}
	return 0, fmt.Errorf("there is no group %q", name)
}

func (a *accounts) uid(name string) (int, error) {
	for _, u := range a.Users {
		if u.Name == name {
			return *u.UID, nil
		}
	}
	return 0, fmt.Errorf("there is no user %q", name)
}

// databases are the files that make the users known, and those with which
// NixOS's update-users-groups.pl remembers them for its next run. They are what
// it writes on a system that has nobody yet.
func (a *accounts) databases() (map[string]file, error) {
	var passwd, shadow, groups, subuid, subgid strings.Builder
	uids, gids, subIDs := map[string]int{}, map[string]int{}, map[string]int{}
	for _, g := range a.Groups {
		members := slices.Compact(slices.Sorted(slices.Values(g.Members)))
		fmt.Fprintf(&groups, "%s:x:%d:%s\n", g.Name, *g.GID, strings.Join(members, ","))
		gids[g.Name] = *g.GID
	}
	nextSubID := firstSubID
	for _, u := range a.Users {
		uids[u.Name] = *u.UID
		shell, password, expires := nologin, "!", ""
		if u.Shell != nil {
			shell = *u.Shell
		}
		if u.Password != nil {
			password = *u.Password
		}
		if u.Expires != nil {
			day, err := time.Parse(time.DateOnly, *u.Expires)
			if err != nil {
				return nil, fmt.Errorf("the user %s: %w", u.Name, err)
			}
			expires = fmt.Sprint(day.Unix() / (24 * 60 * 60))
		}
		fmt.Fprintf(&passwd, "%s:x:%d:%d:%s:%s:%s\n", u.Name, *u.UID, u.gid, u.Description, u.Home, shell)
		fmt.Fprintf(&shadow, "%s:%s:1:::::%s:\n", u.Name, password, expires)
		for _, r := range u.SubUIDRanges {
			fmt.Fprintf(&subuid, "%s:%d:%d\n", u.Name, r.Start, r.Count)
		}
		for _, r := range u.SubGIDRanges {
			fmt.Fprintf(&subgid, "%s:%d:%d\n", u.Name, r.Start, r.Count)
		}
		if u.AutoSubIDs {
			line := fmt.Sprintf("%s:%d:%d\n", u.Name, nextSubID, subIDCount)
			subuid.WriteString(line)
			subgid.WriteString(line)
			subIDs[u.Name] = nextSubID
			nextSubID += subIDCount
		}
	}
	shadowGroup, err := a.gid("shadow")
	if err != nil {
		return nil, err
	}
	files := map[string]file{
		"etc/passwd": {mode: 0o644, data: []byte(passwd.String())},
		"etc/group":  {mode: 0o644, data: []byte(groups.String())},
		"etc/shadow": {mode: 0o640, gid: shadowGroup, data: []byte(shadow.String())},
		"etc/subuid": {mode: 0o644, data: []byte(cmp.Or(subuid.String(), "\n"))},
		"etc/subgid": {mode: 0o644, data: []byte(cmp.Or(subgid.String(), "\n"))},

		"var/lib/nixos/uid-map":            jsonFile(uids, ""),
		"var/lib/nixos/gid-map":            jsonFile(gids, ""),
		"var/lib/nixos/auto-subuid-map":    jsonFile(subIDs, "\n"),
		"var/lib/nixos/declarative-users":  {mode: 0o644, data: []byte(strings.Join(slices.Sorted(maps.Keys(uids)), " "))},
		"var/lib/nixos/declarative-groups": {mode: 0o644, data: []byte(strings.Join(slices.Sorted(maps.Keys(gids)), " "))},
	}
	return files, nil
}
