package main

import (
	"path/filepath"
	"slices"
	"strings"
)

// Step is one command of a plan.
type Step struct {
	Title string // what it does, for progress; empty: it belongs to the step before
	Root  bool   // needs root
	Dir   string // working directory; empty: any
	Argv  []string
}

// File is a file that must exist before the steps run.
type File struct{ Path, Content string }

// script says what carrying a plan out comes to: the directories and files of a private working directory, and commands.
type script struct {
	Dirs  []string
	Files []File
	Steps []Step
}

// makeScript turns a plan into commands that use the empty directory work for everything temporary. sources are the
// system's. replace names the directories of borrowed programs where an earlier copy is in the way.
func makeScript(plan Plan, release Release, arch Arch, sources []Source, work string, replace []string) (script, error) {
	var s script
	if len(plan.Packages) > 0 {
		if err := s.install(plan, release, sources, work); err != nil {
			return script{}, err
		}
	}
	for _, b := range plan.Borrows {
		if err := s.borrow(b, release, arch, sources, work); err != nil {
			return script{}, err
		}
		s.publish(b, work, slices.Contains(replace, b.Dir()))
	}
	return s, nil
}

// install adds the installation of the plan's packages: from the system's own sources, or, when a further suite is
// needed, from private ones.
func (s *script) install(plan Plan, release Release, sources []Source, work string) error {
	// Another package manager may be at work, as unattended upgrades are on a machine that was just started.
	argv := []string{"env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-y", "-o", "DPkg::Lock::Timeout=600"}
	update := Step{Title: "Reading the package lists", Root: true, Argv: []string{"apt-get", "-o", "DPkg::Lock::Timeout=600", "update"}}
	if plan.Suite != "" {
		private, err := withSuite(sources, release, plan.Suite)
		if err != nil {
			return err
		}
		list := filepath.Join(work, "install.sources")
		lists := filepath.Join(work, "install-lists")
		s.Files = append(s.Files, File{list, renderSources(private)})
		s.Dirs = append(s.Dirs, lists)
		options := privateSources(list, lists)
		cache := filepath.Join(work, "install-cache")
		s.Dirs = append(s.Dirs, cache)
		update = Step{
			Title: "Reading the package lists, with those of " + plan.Suite,
			Argv:  append(append([]string{"apt-get"}, options...), "-o", "Dir::Cache="+cache, "update"),
		}
		// The binary caches must not take over what only our private lists say.
		argv = append(append(argv, options...), "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=", "-t", plan.Suite)
	}
	argv = append(append(argv, "install", "--no-install-recommends"), plan.Packages...)
	s.Steps = append(s.Steps, update, Step{
		Title: "Installing " + strings.Join(plan.Packages, ", "), Root: true, Argv: argv,
	})
	return nil
}

// privateSources makes apt read one list of sources instead of the system's, and keep what it downloads about them in
// the directory lists. By itself apt would call it a success when a list cannot be fetched.
func privateSources(list, lists string) []string {
	return []string{
		"-o", "Dir::Etc::sourcelist=" + list, "-o", "Dir::Etc::sourceparts=/dev/null",
		"-o", "Dir::State::lists=" + lists, "-o", "Acquire::Languages=none",
		"-o", "APT::Update::Error-Mode=any",
	}
}

// quote renders argv so that a shell would read it back.
func quote(argv []string) string {
	words := make([]string, len(argv))
	for i, word := range argv {
		plain := word != "" && strings.Trim(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=.,:/@%") == ""
		if !plain {
			word = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
		words[i] = word
	}
	return strings.Join(words, " ")
}
