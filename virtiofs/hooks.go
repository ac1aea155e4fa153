package virtiofs

import (
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sourcery-zone/sandbox/internal/hostdir"
	"github.com/sourcery-zone/sandbox/virtiofs/rules"
)

// maxHooks bounds how many hooks are looked at. Git knows some 30.
const maxHooks = 1000

// Judge is what decides about the share, of which dir is the directory, or the file, as it is now.
func (s Share) Judge(dir *hostdir.Dir) (_ *rules.Set, err error) {
	if s.Clone != "" {
		return rules.New(originRules)
	}
	if s.Objects {
		return rules.New(objectRules)
	}
	choice := s.Rules
	if dir.IsFile() { // which is served in a directory like its own
		choice.Above = aboveRules(dir.In().Path())
		return rules.New(choice)
	}
	choice.Above = aboveRules(dir.Path())
	if !s.ReadOnly || s.CopyOnWrite { // else nothing is written, wherever they lead
		if choice.Hooks, err = hooks(dir); err != nil {
			return nil, err
		}
	}
	return rules.New(choice)
}

// aboveRules is as much of the path of a share's directory as rules look at.
func aboveRules(dir string) string {
	names := strings.Split(strings.Trim(dir, "/"), "/")
	for i, name := range slices.Backward(names) {
		if name == ".git" {
			return path.Join(names[i:]...)
		}
	}
	return names[len(names)-1]
}

// hooks returns to which paths of the directory the hooks of its own repository lead: by core.hooksPath, or because they,
// or their directory, are symbolic links. They are what the host's user made, as the guest can make neither.
func hooks(dir *hostdir.Dir) ([]string, error) {
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", dir.File().Fd()))
	if err != nil {
		return nil, fmt.Errorf("looking for hooks in %s: %w", dir.Path(), err)
	}
	defer root.Close()
	const place = ".git/hooks"
	var found []string
	add := func(from, to string) {
		if filepath.IsAbs(to) {
			var within bool
			if to, within = strings.CutPrefix(path.Clean(to), dir.Path()+"/"); !within {
				return
			}
			from = "."
		}
		if to = path.Join(from, to); to != "." && filepath.IsLocal(to) && !slices.Contains(found, to) {
			found = append(found, to)
		}
	}
	// What is not there, or leads out of the directory, which the guest does not reach, is nothing to protect.
	if config, err := root.Open(".git/config"); err == nil {
		text, err := io.ReadAll(io.LimitReader(config, rules.MaxContent))
		config.Close()
		if to := rules.HooksPath(text); err == nil && to != "" {
			add(".", to)
		}
	}
	dirs := []string{place}
	if to, err := root.Readlink(place); err == nil {
		add(path.Dir(place), to)
		dirs = nil
	}
	for _, name := range append(dirs, found...) {
		list, err := root.Open(name)
		if err != nil {
			continue
		}
		names, _ := list.Readdirnames(maxHooks) // a file has none
		list.Close()
		for _, hook := range names {
			if to, err := root.Readlink(path.Join(name, hook)); err == nil {
				add(name, to)
			}
		}
	}
	return found, nil
}
