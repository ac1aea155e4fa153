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

// Hooks returns to which paths of the directory the hooks of its own repository lead: by core.hooksPath, or because they,
// or their directory, are symbolic links. They are what the host's user made, as the guest can make neither.
func Hooks(dir *hostdir.Dir) ([]string, error) {
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", dir.File().Fd()))
	if err != nil {
		return nil, fmt.Errorf("looking for hooks in %s: %w", dir.Path(), err)
	}
	defer root.Close()
	const hooks = ".git/hooks"
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
	dirs := []string{hooks}
	if to, err := root.Readlink(hooks); err == nil {
		add(path.Dir(hooks), to)
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
