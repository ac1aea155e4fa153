package machine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/internal/gpgagent"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/machine/snapshot"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/upstream"
	"github.com/sourcery-zone/sandbox/qemu"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// Config is what was asked for when the sandbox was created, or resized. It holds no
// secret: values for commands travel with the command, and Access.Secrets says where others are.
//
// Before a sandbox is made of it, the zero value of a field leaves it open:
// [Host.Resolve] says what it is then.
type Config struct {
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	Hardware
	Access
	Life

	Project        string `json:"project,omitempty"`        // directory for whose sandboxes together the user opens something; empty: none
	ForkOf         string `json:"forkOf,omitempty"`         // name of the sandbox whose snapshot it began with
	Template       bool   `json:"template,omitempty"`       // a machine that is made for its saved state: nothing is mounted
	TemplateShares int    `json:"templateShares,omitempty"` // the number of shares, besides the home, of those who begin with it
}

// Hardware is the machine itself, on which a saved state of it depends.
type Hardware struct {
	Image     image.Ref       `json:"image"` // with the whole digest, or with a directory
	MemoryMiB int             `json:"memoryMiB"`
	CPUs      int             `json:"cpus"`
	DiskMiB   int             `json:"diskMiB,omitempty"` // 0: what is written outside home and shares is forgotten at each stop
	Caches    []string        `json:"caches,omitempty"`  // directories of the guest that outlive the sandbox, for others of its project: see CachePath
	NoHome    bool            `json:"noHome,omitempty"`  // the home is no directory of the host, but like all else in the guest
	Network   network.Mode    `json:"network"`
	Transport agent.Transport `json:"transport"`
	Machine   qemu.Machine    `json:"machine,omitempty"` // empty: chosen at each start
}

// Access is what the guest may have of the host, and who may enter it.
type Access struct {
	Shares         []virtiofs.Share    `json:"shares,omitempty"`
	HomeQuotaMiB   int                 `json:"homeQuotaMiB,omitempty"`       // that the home may hold; 0: as much as there is room for
	AllowWeak      bool                `json:"allowWeakIsolation,omitempty"` // run also where this machine does not offer the walls that keep the guest in
	Forwards       []network.Forward   `json:"forwards,omitempty"`           // without the one for ssh
	AutoPublish    bool                `json:"autoPublish,omitempty"`        // a port of the host leads to each on which the guest listens
	Allow          []string            `json:"allow,omitempty"`              // rules that open (see policy.ParseRule), with which it was made
	Allowed        []string            `json:"allowed,omitempty"`            // those that were added since
	Registries     map[string][]string `json:"registries,omitempty"`         // rules of presets that were read in the guest: see policy.Preset
	Deny           []string            `json:"deny,omitempty"`               // rules that close (see policy.ParseDeny), which count more, with which it was made
	Denied         []string            `json:"denied,omitempty"`             // those that were added since
	HostPorts      []network.HostPort  `json:"hostPorts,omitempty"`          // of the host's loopback, that are open to the guest
	Secrets        []string            `json:"secrets,omitempty"`            // that stay on the host, and where they may go (see secret.Parse)
	Placeholders   map[string]string   `json:"placeholders,omitempty"`       // what the guest has in their place, by their names; made at the first start
	Revoked        []string            `json:"revoked,omitempty"`            // names of secrets that were taken away since: the guest has their placeholders, and nothing comes of them
	GitCredentials []string            `json:"gitCredentials,omitempty"`     // remotes for which the host's git has credentials that the guest uses: names of remotes of the shares, or addresses, as Resolve makes of them
	GitUsers       map[string]string   `json:"gitUsers,omitempty"`           // whose they are, by the names of their secrets, since the last start
	AWSRegion      string              `json:"awsRegion,omitempty"`          // of the profile that signs the guest's requests, since the last start; empty: it has none
	TrustHostCA    string              `json:"trustHostCA,omitempty"`        // file with certificates that the guest is to believe, or TrustSystem; empty: none
	UpstreamProxy  string              `json:"upstreamProxy,omitempty"`      // by which the guest reaches the Internet, or NoProxy; empty: those of the environment at each start
	SSHPort        int                 `json:"sshPort,omitempty"`            // host port that was asked for; 0: 2222, or any free one
	AuthorizedKeys []string            `json:"authorizedKeys,omitempty"`
	AgentSessions  string              `json:"agentSessions,omitempty"` // source of the share in which an AI agent keeps its sessions; empty: there is none
	GPGAgentAsk    []string            `json:"gpgAgentAsk,omitempty"`   // fingerprints of those of GPGAgentKeys for which the user is asked at each use
	GPGAgentKeys   []gpgagent.Key      `json:"gpgAgentKeys,omitempty"`  // of the user's gpg-agent, with which the guest may sign
	SSHAgentAsk    []string            `json:"sshAgentAsk,omitempty"`   // those of SSHAgentKeys for which the user is asked at each use
	SSHAgentKeys   []string            `json:"sshAgentKeys,omitempty"`  // fingerprints of those keys of the user's ssh agent that the guest may use
}

// Life says when the sandbox ends, and what becomes of it then.
type Life struct {
	Remove       bool          `json:"remove,omitempty"`  // remove the sandbox when it stops
	Restart      RestartPolicy `json:"restart,omitempty"` // what becomes of it when its guest ends by itself
	ReadyTimeout time.Duration `json:"readyTimeout"`      // nanoseconds, to readiness "agent"
}

// Defaults of a sandbox whose image states none.
const (
	DefaultMemoryMiB    = 1024
	DefaultCPUs         = 2
	DefaultReadyTimeout = 2 * time.Minute
	// DefaultWorkspaceDiskMiB is the disk, in MiB, of a sandbox with a copy-on-write share or a clone that was not given another:
	// what the guest writes there is kept on it. It takes on the host what is written.
	DefaultWorkspaceDiskMiB = 20 << 10
	// DefaultGrace is how long a guest may take to power down before it is
	// killed. A software-emulated guest needs about ten seconds.
	DefaultGrace = 30 * time.Second
)

// MinMemoryMiB is what the kernel, its initrd (unpacked to memory) and systemd
// need to start at all.
const MinMemoryMiB = 256

// Resolve completes a configuration with what the image decides, and with our own
// defaults, which are the safe ones. What is in a guest relative to a home is made
// absolute: it starts at the home of the image's user, whoever a command later runs
// as. Shares of which nothing is known are judged as they are now, and a danger is an
// error (virtiofs.DangerError). An empty name is made up.
func (h *Host) Resolve(c Config, img *image.Image) (Config, error) {
	m := img.Manifest
	c.Image = img.Exact()
	if c.Name == "" {
		c.Name = h.NewName()
	}
	c.Created = time.Now().UTC()
	c.MemoryMiB = cmp.Or(c.MemoryMiB, m.Defaults.MemoryMiB, DefaultMemoryMiB)
	c.CPUs = cmp.Or(c.CPUs, m.Defaults.CPUs, DefaultCPUs)
	c.Network = cmp.Or(c.Network, network.ModePublic)
	c.Transport = cmp.Or(c.Transport, agent.TransportAuto)
	c.ReadyTimeout = cmp.Or(c.ReadyTimeout, DefaultReadyTimeout)
	c.Shares, c.Caches = h.withRepositories(c.Shares), slices.Clone(c.Caches)
	if c.DiskMiB == 0 && slices.ContainsFunc(c.Shares, keepsWork) {
		c.DiskMiB = DefaultWorkspaceDiskMiB // in memory, the work would be lost at stop
	}
	var errs []error
	for i, share := range c.Shares {
		if share.Directory.IsZero() {
			admitted, err := share.Admit(h.ShareRules())
			if err != nil {
				errs = append(errs, err)
				continue
			}
			share = admitted
		}
		if !path.IsAbs(share.Target) {
			share.Target = path.Join(m.User.Home, share.Target)
		}
		c.Shares[i] = share
	}
	for i, target := range c.Caches {
		c.Caches[i] = c.cachePath(target, m.User.Home)
	}
	if len(errs) == 0 {
		c.Shares = h.withBorrowed(context.Background(), c.Shares, m.User.Home)
		errs = append(errs, checkClones(c.Shares))
		rules, err := ResolveRemotes(c.Allow, c.Shares)
		c.Allow, errs = rules, append(errs, err)
		c.GitCredentials, err = resolveCredentials(c.GitCredentials, c.Shares)
		errs = append(errs, err)
	}
	return c, errors.Join(errs...)
}

func copyOnWrite(s virtiofs.Share) bool { return s.CopyOnWrite }

func (c Config) hasQuota() bool {
	return c.HomeQuotaMiB != 0 || slices.ContainsFunc(c.Shares, func(s virtiofs.Share) bool { return s.Quota != 0 })
}

// keepsWork tells whether what the guest makes of a share is on its own disk.
func keepsWork(s virtiofs.Share) bool { return s.CopyOnWrite || s.Clone != "" }

// Validate finds what is wrong with c in itself; [Host.Plan] compares it with
// the host. All complaints are joined.
func (c Config) Validate() error {
	errs := []error{layout.CheckName(c.Name), network.CheckConflicts(c.Forwards)}
	for _, f := range c.Forwards {
		if c.Network == network.ModeUser && !f.HostIP.Is4() {
			errs = append(errs, remedy.Add(fmt.Errorf("the port forward %s cannot be had: QEMU's own network forwards from IPv4 addresses only, such as 127.0.0.1", f), remedy.Set, "net", string(network.ModePublic)))
		}
	}
	if c.AutoPublish && c.Network == network.ModeUser {
		errs = append(errs, remedy.Add(errors.New("ports cannot be published as the guest opens them: QEMU's own network opens its ports only when it starts"), remedy.Set, "net", string(network.ModePublic)))
	}
	errs = append(errs, c.ValidateRules(c.Network), c.validateHostPorts(), c.validateSecrets(), c.validateSSHAgentKeys(), c.validateGPGAgentKeys(), c.validateUpstream(), c.validateCaches())
	if c.MemoryMiB < MinMemoryMiB {
		errs = append(errs, remedy.Add(fmt.Errorf("%d MiB of memory are too few for a guest", c.MemoryMiB), remedy.Set, "memory", fmt.Sprintf("at least %dM", MinMemoryMiB)))
	}
	if c.CPUs < 1 || c.CPUs > 255 {
		errs = append(errs, remedy.Add(fmt.Errorf("%d CPUs are not possible", c.CPUs), remedy.Set, "cpus", "a number from 1 to 255"))
	}
	if c.DiskMiB != 0 && (c.DiskMiB < minDiskMiB || c.DiskMiB > maxDiskMiB) {
		errs = append(errs, remedy.Add(fmt.Errorf("a disk of %d MiB is not possible", c.DiskMiB), remedy.Set, "disk", fmt.Sprintf("a size from %dM to %dT", minDiskMiB, maxDiskMiB>>20)))
	}
	if c.HomeQuotaMiB != 0 && c.NoHome {
		errs = append(errs, remedy.Add(errors.New("a home in the guest is no directory of this machine that could have a quota"), remedy.LeaveOut, "home-quota"))
	}
	if c.Network == network.ModeNone && (len(c.Forwards) > 0 || c.AutoPublish || c.SSHPort != 0) {
		errs = append(errs, remedy.Add(errors.New("ports cannot be published without a network"), remedy.NoPorts))
	}
	if c.ReadyTimeout <= 0 {
		errs = append(errs, remedy.Add(fmt.Errorf("a guest cannot be ready within %v", c.ReadyTimeout), remedy.Set, "timeout", fmt.Sprintf("a duration such as %v", DefaultReadyTimeout)))
	}
	if c.Remove && c.Restart == RestartAlways {
		errs = append(errs, remedy.Add(errors.New("a sandbox cannot both be removed when it stops and always run again"), remedy.RemoveOrRerun))
	}
	switch c.Transport {
	case agent.TransportAuto, agent.TransportVsock, agent.TransportSerial:
	default:
		errs = append(errs, fmt.Errorf("the transport %q does not exist: use auto, vsock or serial", c.Transport))
	}
	return errors.Join(errs...)
}

// NoProxy is what Access.UpstreamProxy is if none is to be used.
const NoProxy = "none"

// Proxies are those by which the guest's connections go, where the environment says what
// it does.
func (a Access) Proxies(environment upstream.Settings) upstream.Settings {
	switch a.UpstreamProxy {
	case "":
		return environment
	case NoProxy:
		return upstream.Settings{}
	}
	s := upstream.One(a.UpstreamProxy)
	s.None = environment.None
	return s
}

func (c Config) validateUpstream() error {
	switch {
	case c.UpstreamProxy == "" || c.UpstreamProxy == NoProxy:
		return nil
	case !c.Network.Judged():
		return remedy.Add(fmt.Errorf("the network mode %s uses no proxy", c.Network), remedy.Set, "net", string(network.ModePublic))
	}
	return upstream.Check(c.UpstreamProxy)
}

func (c Config) validateHostPorts() error {
	switch {
	case len(c.HostPorts) > 0 && !c.Network.Judged():
		return remedy.Add(fmt.Errorf("the network mode %s opens no single ports of the host", c.Network), remedy.Set, "net", string(network.ModePublic))
	case len(c.HostPorts) > network.MaxHostPorts:
		return fmt.Errorf("%d ports of the host are too many: a guest has at most %d", len(c.HostPorts), network.MaxHostPorts)
	}
	return nil
}

// HomeTag is by what a guest knows its home, unless it has none of the host.
const HomeTag = "home"

// SpareSlots is how many shares a sandbox can get while it runs, besides those with which it starts, until one is
// unmounted. Each costs an emulated guest, which has a bus more to look at when it boots, less than a tenth of a second.
const SpareSlots = 4

// ShareSlots is how many slots a machine has that starts with that number of shares.
func ShareSlots(shares int) int { return min(shares+SpareSlots, qemu.MaxPorts) }

// SharePlaces are those of that number of shares in a machine that boots.
func SharePlaces(shares int) []snapshot.Place {
	places := make([]snapshot.Place, shares)
	for i := range places {
		places[i] = snapshot.Place{Tag: ShareTag(i), Port: i + 1}
	}
	return places
}

// ShareTags are by what a guest knows its shares.
const ShareTags = "share%d"

// ShareTag is by what it knows the share that is its nth, from 0 on.
func ShareTag(n int) string { return fmt.Sprintf(ShareTags, n) }
