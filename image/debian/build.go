package debian

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/agent/boot"
	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/image/assemble"
	"github.com/sourcery-zone/sandbox/image/initrd"
	"github.com/sourcery-zone/sandbox/internal/flock"
	"github.com/sourcery-zone/sandbox/internal/progress"
	"github.com/sourcery-zone/sandbox/internal/remedy"
)

// Builder is how manifests name this recipe.
const Builder = "debian"

// Options say what to build, and where and how.
type Options struct {
	Name     string   // of the image; empty means "debian"
	Suite    string   // Debian's code name; empty means "trixie"
	Arch     string   // "x86_64" or "aarch64"
	Bare     bool     // without what people and AI agents expect: it boots and runs commands
	Packages []string // besides those of the recipe
	With     []string // AI agents from npm: NAME or NAME@VERSION
	Mirrors  []string // addresses, or lines of apt's sources.list; empty: the host's own, or mmdebstrap's
	// Epoch is the newest time stamp of the result. Zero means the date of
	// the archive.
	Epoch time.Time

	Agent    string             // the static agent for Arch
	CacheDir string             // keeps root file systems; is made if absent
	Force    bool               // do not use the cache
	Progress *progress.Reporter // may be nil

	newRoom func(parent, mmdebstrap string, shown []string) (*room, error) // nil: newRoom
}

// withDefaults completes o.
func (o Options) withDefaults() (Options, error) {
	if o.Name == "" {
		o.Name = "debian"
	}
	if o.Suite == "" {
		o.Suite = "trixie"
	}
	if o.newRoom == nil {
		o.newRoom = newRoom
	}
	return o, image.CheckName(o.Name)
}

// aptDir is where apt keeps the host's sources.
const aptDir = "/etc/apt"

// Inputs is the digest of everything that was asked for, except the agent. Two
// builds with equal digests differ only if the archive changed meanwhile.
func (o Options) Inputs() (string, error) {
	o, err := o.withDefaults()
	if err != nil {
		return "", err
	}
	in, err := o.resolve(aptDir)
	if err != nil {
		return "", err
	}
	return in.digest(), nil
}

// AgentDigest is the sha256 of the agent that goes into the image.
func (o Options) AgentDigest() (string, error) {
	data, err := o.readAgent()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// Build builds an image and returns its directory, which is the caller's to
// install and to remove. The slow half comes from the cache if it is there.
func Build(ctx context.Context, o Options) (dir string, err error) {
	o, err = o.withDefaults()
	if err != nil {
		return "", err
	}
	in, err := o.resolve(aptDir)
	if err != nil {
		return "", err
	}
	agent, err := o.readAgent() // before the slow part
	if err != nil {
		return "", err
	}
	unlock, err := o.lockCache()
	if err != nil {
		return "", err
	}
	defer unlock()
	root, err := o.rootfs(ctx, in)
	if err != nil {
		return "", err
	}
	dir, err = os.MkdirTemp(o.CacheDir, buildPrefix)
	if err != nil {
		return "", err
	}
	if err := o.assemble(ctx, dir, in, root, agent); err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	return dir, nil
}

// Names in the cache's directory besides the root file systems.
const (
	rootfsParent = "rootfs"
	lockFile     = ".lock"
	logFile      = "debian-build.log"
	buildPrefix  = ".build-"
	newPrefix    = ".new-"
	roomPrefix   = ".room-"
)

// lockCache makes the cache ready for one build at a time.
func (o Options) lockCache() (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Join(o.CacheDir, rootfsParent), 0o700); err != nil {
		return nil, fmt.Errorf("the cache for images cannot be made: %w", err)
	}
	var step *progress.Step
	f, err := flock.Wait(filepath.Join(o.CacheDir, lockFile), func() {
		step = o.Progress.Start("waiting for another build to end", 0)
	})
	if step != nil {
		step.Done()
	}
	if err != nil {
		return nil, fmt.Errorf("the cache for images cannot be locked: %w", err)
	}
	return func() { _ = flock.Unlock(f) }, nil // nobody could do anything about it
}

// rootfs takes the root file system from the cache, or makes it.
func (o Options) rootfs(ctx context.Context, in inputs) (*cachedRoot, error) {
	if !o.Force {
		if root, err := findRoot(o.CacheDir, in.digest()); root != nil || err != nil {
			return root, err
		}
	}
	path, err := findMmdebstrap()
	if err != nil {
		return nil, err
	}
	emulator, err := emulator(in.Arch, binfmtDir)
	if err != nil {
		return nil, err
	}
	if err := sweep(filepath.Join(o.CacheDir, rootfsParent)); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(o.CacheDir, logFile), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	step := o.Progress.Start(fmt.Sprintf("installing Debian %s (%d packages and what they need)", in.Suite, len(in.Packages)), 0)
	defer step.Fail()
	room, err := o.newRoom(o.CacheDir, path, localArchives(in.Sources))
	if err != nil {
		return nil, err
	}
	if in.NPMTool != nil {
		if err := o.supplyNPM(ctx, room, *in.NPMTool); err != nil {
			return nil, errors.Join(err, room.close())
		}
	}
	b := bootstrap{path: path, room: room, emulator: emulator, log: log, note: step.Note}
	root, err := makeRootfs(ctx, b, in, o.CacheDir)
	if err = errors.Join(err, room.close()); err != nil {
		return nil, err
	}
	step.Done()
	return root, nil
}

// sweep removes the unfinished root file systems of interrupted builds. The
// caller holds the lock.
func sweep(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, newPrefix+"*"))
	for _, d := range left {
		err = errors.Join(err, os.RemoveAll(d))
	}
	return err
}

// assemble puts an image together in dir.
func (o Options) assemble(ctx context.Context, dir string, in inputs, root *cachedRoot, agent []byte) error {
	step := o.Progress.Start("assembling the image", 0)
	defer step.Fail()
	for _, name := range []string{assemble.StoreFile, assemble.KernelFile} {
		if err := os.Link(filepath.Join(root.dir, name), filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("taking the root file system from the cache: %w", err)
		}
	}
	modules, err := initrd.Select(os.DirFS(filepath.Join(root.dir, modulesDir)), in.Modules, optionalModules()...)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(agent)
	m := o.manifest(in, root.content)
	m.Provenance.AgentSHA = hex.EncodeToString(sum[:])
	if _, err := assemble.Image(ctx, dir, assemble.Parts{
		Manifest: m, Setup: boot.Setup{ListenSSH: sshPort}, Agent: agent, Modules: modules, Note: step.Note,
	}); err != nil {
		return err
	}
	step.Done()
	return nil
}

// manifest is everything about the image but its files.
func (o Options) manifest(in inputs, c content) image.Manifest {
	return image.Manifest{
		Version: image.Version,
		Name:    o.Name,
		System:  o.Arch + "-linux",
		Store:   image.StoreFile{Format: "erofs", Label: storeLabel, Mount: "/"},
		Cmdline: cmdline(),
		Init:    "/sbin/init",
		User:    image.User{Name: userName, UID: userID, GID: userID, Home: userHome, Shell: userShell(o.Bare)},
		// Enough for an AI agent written for Node.
		Defaults:  image.Defaults{MemoryMiB: 2560, CPUs: 2},
		Agent:     image.Agent{Port: agentPort},
		Readiness: image.Readiness{System: "systemd"},
		Requires:  image.Features(),
		Provenance: image.Provenance{
			Builder: Builder, Built: time.Unix(c.Epoch, 0).UTC(), Inputs: in.digest(), Packages: c.Packages,
		},
	}
}

// agentPort is above the vsock ports that only root may take in a guest's own
// programs.
const agentPort = 1024

// sshPort is where the agent answers ssh.
const sshPort = 22

// cmdline is what this recipe's kernel is to know; console and panic are the
// launcher's business. It is not quiet: a start that fails is explained by its
// console, and writing there costs next to nothing.
func cmdline() []string {
	return []string{
		// Landlock and Yama are for the guest's own programs. The others have
		// no policy here, and systemd's BPF program alone takes seconds to be
		// checked under emulation.
		"lsm=landlock,yama",
	}
}

// readAgent reads the agent and makes sure that it can run as /init: static,
// and for the image's processor.
func (o Options) readAgent() ([]byte, error) {
	data, err := os.ReadFile(o.Agent)
	if errors.Is(err, os.ErrNotExist) {
		return nil, remedy.Add(fmt.Errorf("the guest's agent %s is not there", o.Agent), remedy.FindAgent)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the guest's agent: %w", err)
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("the guest's agent %s is not a Linux program: %w", o.Agent, err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			name, _ := io.ReadAll(p.Open())
			return nil, fmt.Errorf("the guest's agent %s needs the dynamic linker %s, which the guest does not have that early: build it with CGO_ENABLED=0", o.Agent, strings.TrimRight(string(name), "\x00"))
		}
	}
	machines := map[string]elf.Machine{"x86_64": elf.EM_X86_64, "aarch64": elf.EM_AARCH64}
	if want := machines[o.Arch]; f.Machine != want {
		return nil, fmt.Errorf("the guest's agent %s is for %v, and the image is for %v: build it with the right GOARCH", o.Agent, f.Machine, want)
	}
	return data, nil
}
