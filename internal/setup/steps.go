package main

import (
	"path/filepath"
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
// system's. replace tells that an earlier borrowed copy is in the way.
func makeScript(plan Plan, release Release, arch Arch, sources []Source, work string, replace bool) (script, error) {
	var s script
	if len(plan.Packages) > 0 {
		if err := s.install(plan, release, sources, work); err != nil {
			return script{}, err
		}
	}
	if plan.Borrow != nil {
		if err := s.borrow(*plan.Borrow, release, arch, sources, work); err != nil {
			return script{}, err
		}
		s.publish(arch, work, replace)
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

// borrow adds the download of packages from another suite and their preparation below work/root, so that they run from
// borrowedDir without the system's libraries. None of it needs root.
func (s *script) borrow(b Borrow, release Release, arch Arch, sources []Source, work string) error {
	source, err := sibling(sources, release, b.Suite, b.Components, arch.Debian)
	if err != nil {
		return err
	}
	list, status := filepath.Join(work, "borrow.sources"), filepath.Join(work, "borrow-status")
	lists, cache, debs, root := filepath.Join(work, "borrow-lists"), filepath.Join(work, "borrow-cache"), filepath.Join(work, "debs"), filepath.Join(work, "root")
	s.Files = append(s.Files, File{list, source.Deb822()}, File{status, ""})
	s.Dirs = append(s.Dirs, lists, cache, debs, root)

	// An empty status file, because the installed packages have no say in what another suite's are; no preferences,
	// because a pin that keeps the system away from that suite is right and yet must not hide it from us.
	options := append(privateSources(list, lists),
		"-o", "Dir::Cache="+cache, "-o", "Dir::State::status="+status,
		"-o", "Dir::Etc::preferences=/dev/null", "-o", "Dir::Etc::preferencesparts=/dev/null")
	apt := append([]string{"apt-get"}, options...)

	binary := filepath.Join(root, "usr/libexec/virtiofsd")
	libraries := filepath.Join(borrowedDir, "usr/lib", arch.Multiarch)
	s.Steps = append(s.Steps,
		Step{Title: "Reading the package list of " + b.Suite, Argv: append(apt[:len(apt):len(apt)], "update")},
		Step{Title: "Downloading virtiofsd of " + b.Suite, Dir: debs, Argv: append(append(apt[:len(apt):len(apt)], "download"), b.Packages...)},
		Step{Title: "Unpacking virtiofsd", Dir: debs, Argv: []string{"sh", "-euc", `for deb in *.deb; do dpkg -x "$deb" "$1"; done`, "sh", root}},
		// DT_RPATH and not DT_RUNPATH: it holds for the libraries' own libraries too.
		Step{Argv: []string{
			"patchelf", "--set-interpreter", filepath.Join(libraries, arch.Loader),
			"--force-rpath", "--set-rpath", libraries, binary,
		}},
	)
	return nil
}

// publish adds the copy of what borrow prepared to its place. It appears there whole, by renames.
func (s *script) publish(arch Arch, work string, replace bool) {
	parent, links := filepath.Dir(borrowedDir), filepath.Dir(borrowedLink)
	fresh, old, link := borrowedDir+".new", borrowedDir+".old", borrowedLink+".new"
	add := func(argv ...string) { s.Steps = append(s.Steps, Step{Root: true, Argv: argv}) }

	s.Steps = append(s.Steps, Step{Title: "Installing virtiofsd to " + borrowedDir, Root: true, Argv: []string{"rm", "-rf", fresh, old, link}})
	add("install", "-d", "-m", "755", parent, links)
	add("cp", "-a", "--no-preserve=ownership", filepath.Join(work, "root"), fresh)
	add("chmod", "-R", "u=rwX,go=rX", fresh)
	if replace {
		add("mv", "-T", borrowedDir, old)
	}
	add("mv", "-T", fresh, borrowedDir)
	add("ln", "-s", filepath.Join(borrowedDir, "usr/libexec/virtiofsd"), link)
	add("mv", "-T", link, borrowedLink)
	if replace {
		add("rm", "-rf", old)
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
