package main

import (
	"bufio"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// borrowedParent holds a directory for each borrowed program, complete in itself: loader and libraries too.
const borrowedParent = "/usr/local/lib/sandbox"

// Borrow describes a program that comes from another release's suite of the same archive. It is unpacked with the
// libraries of that suite to a directory of its own and does not touch the system's.
type Borrow struct {
	Name       string // of the program, for people and for the directory
	Package    string // what it needs besides is the archive's to say
	Suite      string
	Components []string
	Binary     string // in the package
	Link       string // where the program is found afterwards
	// Launcher is the shell script that Link leads to, where the binary alone would not do; Config is a file that it
	// names. Both lie in Dir.
	Launcher, Config string
}

// virtiofsdOf borrows virtiofsd. Package virtiofs looks for it at the link.
func virtiofsdOf(suite string, components ...string) *Borrow {
	return &Borrow{
		Name: "virtiofsd", Package: "virtiofsd", Suite: suite, Components: components,
		Binary: "usr/libexec/virtiofsd", Link: "/usr/local/libexec/sandbox/virtiofsd",
	}
}

// nixOf borrows Nix for a single user: there is no service and there are no users to build as, and root needs neither.
func nixOf(suite string, components ...string) *Borrow {
	b := &Borrow{
		Name: "nix", Package: "nix-bin", Suite: suite, Components: components,
		Binary: "usr/bin/nix", Link: "/usr/local/bin/nix",
		Config: `# Of the Nix that was installed for sandbox's tests.
experimental-features = nix-command flakes
# Builds run as the user who asks for them, root too.
build-users-group =
# Where namespaces are forbidden, as in many containers, there is no sandbox to build in. Nor is there a Nix store to
# take its shell from.
sandbox = false
# The filter is the business of the sandbox, and in containers the kernel may refuse it.
filter-syscalls = false
`,
	}
	b.Launcher = fmt.Sprintf(`#!/bin/sh
# Nix from another release, with a configuration that needs no service: installed by sandbox's set-up for tests.
export NIX_CONF_DIR="${NIX_CONF_DIR:-%s}"
exec %s "$@"
`, b.Dir(), filepath.Join(b.Dir(), b.Binary))
	return b
}

// Dir is where the program goes with all that it needs.
func (b Borrow) Dir() string { return filepath.Join(borrowedParent, b.Name) }

// The names that Nix, as the only program with a configuration, gives these files.
const (
	launcherName = "launcher"
	configName   = "nix.conf"
)

// target is what the link leads to.
func (b Borrow) target() string {
	if b.Launcher != "" {
		return filepath.Join(b.Dir(), launcherName)
	}
	return filepath.Join(b.Dir(), b.Binary)
}

// borrow adds the download of a package from another suite and its preparation below work, so that it runs from its
// directory without the system's libraries. None of it needs root.
func (s *script) borrow(b Borrow, release Release, arch Arch, sources []Source, work string) error {
	source, err := sibling(sources, release, b.Suite, b.Components, arch.Debian)
	if err != nil {
		return err
	}
	// Of the suite, once for all that is borrowed from it.
	list, lists := filepath.Join(work, b.Suite+".sources"), filepath.Join(work, b.Suite+"-lists")
	status, cache := filepath.Join(work, "no-status"), filepath.Join(work, b.Suite+"-cache")
	// Of the program.
	debs, root := filepath.Join(work, b.Name+"-debs"), filepath.Join(work, b.Name)

	// An empty status file, because the installed packages have no say in what another suite's are; no preferences,
	// because a pin that keeps the system away from that suite is right and yet must not hide it from us.
	apt := append([]string{"apt-get"}, append(privateSources(list, lists),
		"-o", "Dir::Cache="+cache, "-o", "Dir::State::status="+status,
		"-o", "Dir::Etc::preferences=/dev/null", "-o", "Dir::Etc::preferencesparts=/dev/null")...)
	if !slices.Contains(s.Dirs, lists) {
		s.Files = append(s.Files, File{list, source.Deb822()}, File{status, ""})
		s.Dirs = append(s.Dirs, lists, cache)
		s.Steps = append(s.Steps, Step{Title: "Reading the package list of " + b.Suite, Argv: append(slices.Clip(apt), "update")})
	}
	s.Dirs = append(s.Dirs, filepath.Join(debs, "partial"), root)

	libraries := filepath.Join("usr/lib", arch.Multiarch)
	s.Steps = append(s.Steps,
		// Nothing is installed: this is how apt downloads a package with all that it depends on. dpkg's lock is for
		// those who install.
		Step{Title: fmt.Sprintf("Downloading %s of %s", b.Name, b.Suite), Argv: append(slices.Clip(apt),
			"-o", "Dir::Cache::archives="+debs, "-o", "Debug::NoLocking=true", "-y", "--no-install-recommends", "--download-only", "install", b.Package)},
		// Only the binary and the libraries: the rest is what packages need to be installed, and not to run.
		Step{Title: "Unpacking " + b.Name, Dir: debs, Argv: []string{
			"sh", "-euc", `for deb in *.deb; do dpkg -x "$deb" all; done; install -D "all/$2" "$1/$2"; mkdir -p "$1/usr/lib"; mv "all/$3" "$1/$3"`,
			"sh", root, b.Binary, libraries,
		}},
		// DT_RPATH and not DT_RUNPATH: it holds for the libraries' own libraries too.
		Step{Argv: []string{
			"patchelf", "--set-interpreter", filepath.Join(b.Dir(), libraries, arch.Loader),
			"--force-rpath", "--set-rpath", filepath.Join(b.Dir(), libraries), filepath.Join(root, b.Binary),
		}},
	)
	if b.Launcher != "" {
		launcher, config := filepath.Join(root, launcherName), filepath.Join(root, configName)
		s.Files = append(s.Files, File{launcher, b.Launcher}, File{config, b.Config})
		s.Steps = append(s.Steps, Step{Argv: []string{"chmod", "755", launcher}})
	}
	return nil
}

// publish adds the copy of what borrow prepared to its place. It appears there whole, by renames.
func (s *script) publish(b Borrow, work string, replace bool) {
	fresh, old, link := b.Dir()+".new", b.Dir()+".old", b.Link+".new"
	add := func(argv ...string) { s.Steps = append(s.Steps, Step{Root: true, Argv: argv}) }

	s.Steps = append(s.Steps, Step{Title: fmt.Sprintf("Installing %s to %s", b.Name, b.Dir()), Root: true, Argv: []string{"rm", "-rf", fresh, old, link}})
	add("install", "-d", "-m", "755", borrowedParent, filepath.Dir(b.Link))
	add("cp", "-a", "--no-preserve=ownership", filepath.Join(work, b.Name), fresh)
	add("chmod", "-R", "u=rwX,go=rX", fresh)
	if replace {
		add("mv", "-T", b.Dir(), old)
	}
	add("mv", "-T", fresh, b.Dir())
	add("ln", "-s", b.target(), link)
	add("mv", "-T", link, b.Link)
	if replace {
		add("rm", "-rf", old)
	}
}

// check makes sure that the borrowed program loads its own libraries only: one of the system's among them would work
// until the system's next upgrade.
func (b Borrow) check(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, filepath.Join(b.Dir(), b.Binary))
	cmd.Env = []string{"LD_TRACE_LOADED_OBJECTS=1"} // the loader lists what it would load, and starts nothing
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("the %s that was installed as %s does not start (%w):\n%s", b.Name, b.Link, err, tail(string(out), tailLines))
	}
	if foreign := b.foreignLibraries(string(out)); len(foreign) > 0 {
		return fmt.Errorf("the %s that was installed as %s would load %s from outside of %s: remove that directory and run this again, and report it if it happens again", b.Name, b.Link, strings.Join(foreign, ", "), b.Dir())
	}
	return nil
}

// foreignLibraries picks from the loader's listing ("name => path (address)") what is missing or not below b's directory.
func (b Borrow) foreignLibraries(listing string) []string {
	var foreign []string
	lines := bufio.NewScanner(strings.NewReader(listing))
	for lines.Scan() {
		name, path, ok := strings.Cut(strings.TrimSpace(lines.Text()), " => ")
		if !ok {
			continue // the kernel's vdso and the loader itself
		}
		path, _, _ = strings.Cut(path, " (")
		if !strings.HasPrefix(filepath.Clean(path), b.Dir()+"/") {
			foreign = append(foreign, name)
		}
	}
	return foreign
}
