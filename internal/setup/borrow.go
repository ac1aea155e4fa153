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

// Borrow describes a program that cannot be installed as a package, because it comes from another release's suite of the
// same archive, or because another version of it is installed. It is unpacked with the libraries of its suite to a
// directory of its own and does not touch the system's.
type Borrow struct {
	Name       string // of the program, for people and for the directory
	Package    string // what it needs besides is the archive's to say
	Suite      string
	Components []string
	Binary     string   // in the package
	Data       []string // directories of the packages that it reads; it looks for them beside the one that it is in
	Link       string   // where the program is found afterwards; empty: only in its directory
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

// oldQEMUOf borrows Debian 12's own QEMU, the oldest that sandboxes run in, as that of its backports is installed. It finds
// its firmware and modules in the same tree as itself, wherever that is.
func oldQEMUOf(arch Arch) *Borrow {
	return &Borrow{
		Name: oldQEMUName, Package: qemuPackage(arch), Suite: "bookworm", Components: []string{"main"},
		Binary: "usr/bin/qemu-system-" + arch.QEMU, Data: []string{"usr/share/qemu", "usr/share/seabios"},
	}
}

// oldQEMUName is a part of the path at which a test of guests looks for it.
const oldQEMUName = "qemu-7.2"

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
	status, cache := filepath.Join(work, b.Suite+"-status"), filepath.Join(work, b.Suite+"-cache")
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

	libraries := filepath.Join(b.Dir(), "usr/lib", arch.Multiarch)
	s.Steps = append(s.Steps,
		// Nothing is installed: this is how apt downloads a package with all that it depends on. dpkg's lock is for
		// those who install.
		Step{Title: fmt.Sprintf("Downloading %s of %s", b.Name, b.Suite), Argv: append(slices.Clip(apt),
			"-o", "Dir::Cache::archives="+debs, "-o", "Debug::NoLocking=true", "-y", "--no-install-recommends", "--download-only", "install", b.Package)},
		Step{Title: "Unpacking " + b.Name, Dir: debs, Argv: append([]string{"sh", "-euc", unpack, "sh", root, b.Binary, arch.Multiarch}, b.Data...)},
		// DT_RPATH and not DT_RUNPATH: it holds for the libraries' own libraries too.
		Step{Argv: []string{
			"patchelf", "--set-interpreter", filepath.Join(libraries, arch.Loader),
			"--force-rpath", "--set-rpath", libraries, filepath.Join(root, b.Binary),
		}},
	)
	if b.Launcher != "" {
		launcher, config := filepath.Join(root, launcherName), filepath.Join(root, configName)
		s.Files = append(s.Files, File{launcher, b.Launcher}, File{config, b.Config})
		s.Steps = append(s.Steps, Step{Argv: []string{"chmod", "755", launcher}})
	}
	return nil
}

// unpack takes from all packages the binary, the libraries and the directories of data: the rest is what packages need to
// be installed, and not to run. Packages from before Debian 13 have some of the libraries in /lib.
const unpack = `root=$1 binary=$2 arch=$3; shift 3
for deb in *.deb; do dpkg -x "$deb" all; done
install -D "all/$binary" "$root/$binary"
mkdir -p "$root/usr/lib"
mv "all/usr/lib/$arch" "$root/usr/lib"
if [ -d "all/lib/$arch" ]; then cp -a "all/lib/$arch/." "$root/usr/lib/$arch"; fi
for dir; do mkdir -p "$root/${dir%/*}"; mv "all/$dir" "$root/$dir"; done`

// publish adds the copy of what borrow prepared to its place. It appears there whole, by renames.
func (s *script) publish(b Borrow, work string, replace bool) {
	fresh, old, link := b.Dir()+".new", b.Dir()+".old", b.Link+".new"
	leftovers, parents := []string{fresh, old}, []string{borrowedParent}
	if b.Link != "" {
		leftovers, parents = append(leftovers, link), append(parents, filepath.Dir(b.Link))
	}
	add := func(argv ...string) { s.Steps = append(s.Steps, Step{Root: true, Argv: argv}) }

	s.Steps = append(s.Steps, Step{Title: fmt.Sprintf("Installing %s to %s", b.Name, b.Dir()), Root: true, Argv: append([]string{"rm", "-rf"}, leftovers...)})
	add(append([]string{"install", "-d", "-m", "755"}, parents...)...)
	add("cp", "-a", "--no-preserve=ownership", filepath.Join(work, b.Name), fresh)
	add("chmod", "-R", "u=rwX,go=rX", fresh)
	if replace {
		add("mv", "-T", b.Dir(), old)
	}
	add("mv", "-T", fresh, b.Dir())
	if b.Link != "" {
		add("ln", "-s", b.target(), link)
		add("mv", "-T", link, b.Link)
	}
	if replace {
		add("rm", "-rf", old)
	}
}

// check makes sure that the borrowed program loads its own libraries only: one of the system's among them would work
// until the system's next upgrade.
func (b Borrow) check(ctx context.Context) error {
	binary := filepath.Join(b.Dir(), b.Binary)
	cmd := exec.CommandContext(ctx, binary)
	cmd.Env = []string{"LD_TRACE_LOADED_OBJECTS=1"} // the loader lists what it would load, and starts nothing
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("the %s that was installed as %s does not start (%w):\n%s", b.Name, binary, err, tail(string(out), tailLines))
	}
	if foreign := b.foreignLibraries(string(out)); len(foreign) > 0 {
		return fmt.Errorf("the %s that was installed as %s would load %s from outside of %s: remove that directory and run this again, and report it if it happens again", b.Name, binary, strings.Join(foreign, ", "), b.Dir())
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
