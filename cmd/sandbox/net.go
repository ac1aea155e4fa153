package main

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/project"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/policy"
	"github.com/sourcery-zone/sandbox/network/secret"
	"github.com/sourcery-zone/sandbox/network/stack"
	"github.com/sourcery-zone/sandbox/network/upstream"
	"github.com/sourcery-zone/sandbox/qemu"
)

func netCommand() *cli.Command {
	return &cli.Command{
		Name:  "net",
		Usage: "see and change what a guest reaches over the network",
		Subcommands: []*cli.Command{
			{
				Name:      "check",
				Usage:     "tell whether a guest reaches something, and which rule decides",
				ArgsUsage: "[NAME] DESTINATION",
				Description: `DESTINATION is a URL, or HOST[:PORT][/udp], at port 443 unless another is given. It is
judged for the sandbox NAME, or for one that run would make here with these options and
the settings files, by what judges its connections, and where single requests are open, by
what judges these: by GET, unless another method stands before the URL. Nothing is
connected to; a name is looked up.

The exit status is 0 if the guest reaches it, and 1 if not, or only when you say so.

EXAMPLES
   sandbox net check work https://registry.npmjs.org/
   sandbox net check 192.168.1.10:5432
   sandbox net check --net allowlist --allow preset:github api.github.com
   sandbox net check work "POST https://api.example.com/v1/messages"`,
				Flags:        optionFlags(func(o project.Option) bool { return slices.Contains(checkOptions, o.Name) }),
				OnUsageError: usageError,
				Action:       netCheck,
			},
			netLsCommand(), netAllowCommand(), netDenyCommand(), netResetCommand(), netAskCommand(), netAnswerCommand(), netLogCommand(),
			{
				Name:  "presets",
				Usage: "show the rules of each preset of an allowlist",
				Description: `EXAMPLES
   sandbox net presets
   sandbox run --net allowlist --allow preset:github --share .`,
				OnUsageError: usageError,
				Action: func(c *cli.Context) error {
					if c.NArg() > 0 {
						return usage("sandbox net presets takes no arguments")
					}
					for _, p := range policy.Presets() {
						if p.Read {
							fmt.Fprintf(c.App.Writer, "preset:%s (what %[1]s in the guest is set to when a sandbox is first started)\n", p.Name)
							continue
						}
						fmt.Fprintf(c.App.Writer, "preset:%s (of %s)\n", p.Name, p.Date)
						for _, rule := range p.Rules {
							fmt.Fprintf(c.App.Writer, "   %s\n", rule)
						}
					}
					return nil
				},
			},
		},
	}
}

// checkOptions are those that decide what a guest reaches.
var checkOptions = []string{"net", "allow", "deny", "share", "git-push-only", "agent", "allow-host-port", "secret", "upstream-proxy"}

func netCheck(c *cli.Context) error {
	if c.NArg() < 1 || c.NArg() > 2 {
		return usage("sandbox net check needs a destination, such as https://example.com/ or 10.0.0.1:22, and takes the name of a sandbox before it")
	}
	text := c.Args().Get(c.NArg() - 1)
	method, address, ok := strings.Cut(text, " ")
	if !ok {
		method, address = http.MethodGet, text
	}
	host, port, proto, err := policy.ParseDestination(address)
	if err != nil {
		return usage("%w", err)
	}
	of, config, err := configToCheck(c)
	if err != nil {
		return err
	}
	mode, access := config.Network, config.Access
	switch mode {
	case network.ModeUser:
		fmt.Fprintln(c.App.Writer, "open: the guest reaches what this machine reaches (user)")
		return nil
	case network.ModeNone:
		fmt.Fprintln(c.App.Writer, "closed: the guest has no network (none)")
		return &exitCode{exitFailure, nil}
	}
	if err := access.ValidateRules(mode); err != nil {
		return usage("%w", err)
	}
	allow, deny := access.Rules()
	judge, err := stack.ConfigOf(mode, allow, deny)
	if err != nil {
		return usage("%w", err)
	}
	judge.HostPorts = access.HostPorts
	secrets, err := access.SecretSpecs()
	if err != nil {
		return usage("%w", err)
	}
	for _, spec := range secrets {
		judge.Read = append(judge.Read, spec.Hosts...)
	}
	// One of the environment that cannot be used is not used by guests either.
	proxies, bad := upstream.New(access.Proxies(upstream.FromEnvironment(os.Getenv)))
	if bad != nil && access.UpstreamProxy != "" {
		return usage("%w", bad)
	}
	judge.Upstream = proxies
	var answer stack.Answer
	request := judgeRequest(judge.Allow, method, address, host, port, proto)
	if request.Rule == "" || request.Allow {
		answer, err = stack.Check(c.Context, judge, host, port, proto)
	}
	if request.Rule != "" && (answer.Allow || !request.Allow) {
		answer.Verdict = request
		answer.Opens = opensRequest(request, method, address, host, port)
	}
	if err != nil {
		return fmt.Errorf("the rules leave %s to what its name leads to, which cannot be found out: %w", host, err)
	}
	verdict := "closed"
	switch {
	case answer.Allow:
		verdict = "open"
	case answer.Asks:
		verdict = "waits for you"
	}
	if answer.Requests {
		verdict = "open to some requests"
	}
	if answer.Addr.IsValid() && answer.Addr.String() != host {
		verdict += ": " + answer.Addr.String()
	}
	fmt.Fprintf(c.App.Writer, "%s: %s\n", verdict, answer.Rule)
	if answer.Read {
		name := strings.ToLower(strings.TrimSuffix(host, "."))
		for _, spec := range secrets {
			at := secret.Host{Name: name, Port: port}
			if !spec.Covers(at) {
				continue
			}
			what := "get the secret " + spec.Name
			if spec.AWS() {
				what = "are signed by the profile " + spec.Source.Of + " of AWS"
			}
			fmt.Fprintf(c.App.Writer, "requests are read, and %s", what)
			if paths := spec.Paths[at]; paths != nil {
				fmt.Fprintf(c.App.Writer, " at %s and below", strings.Join(paths, ", "))
			}
			fmt.Fprintln(c.App.Writer)
		}
	}
	if !answer.Allow {
		if words := howToOpen(of, host, port, answer); words != "" {
			fmt.Fprintln(c.App.Writer, words)
		}
		return &exitCode{exitFailure, nil}
	}
	return nil
}

// configToCheck is that of the sandbox that is named, with its name, or of one that run would make.
func configToCheck(c *cli.Context) (name string, config machine.Config, err error) {
	if c.NArg() == 2 {
		name = c.Args().First()
		if len(given(c)) > 0 {
			return "", config, usage("what %s reaches is known: leave out --net and what else opens something, or its name", name)
		}
		s, err := sandboxNamed(name)
		if err != nil {
			return "", config, err
		}
		config, err = s.Config()
		return name, config, err
	}
	sources, dir, err := loadSettings(c, func(r project.Request) (bool, error) {
		fmt.Fprintf(notes(), "sandbox: note: %s\n", sentences(needsConsent(r)))
		return false, nil
	})
	if err != nil {
		return "", config, err
	}
	host, err := machine.Open()
	if err != nil {
		return "", config, err
	}
	if config, err = configure(c, host, sources); err != nil {
		return "", config, usage("%w", err)
	}
	joinProject(&config, dir, openAnswers(host.Dirs), sources)
	if config.Allow, err = machine.ResolveRemotes(config.Allow, config.Shares); err != nil {
		return "", config, usage("%w", err)
	}
	return "", config, nil
}

// howToOpen says what opens what is closed, to the sandbox of a name or to one that is made, if anything does.
func howToOpen(name, host string, port uint16, a stack.Answer) string {
	switch {
	case slices.Contains([]string{policy.RuleLoopback, policy.RuleHost, stack.RuleGateway}, a.Rule), a.Rule == stack.RuleNoName && host == network.HostName:
		return fmt.Sprintf("a sandbox made with --allow-host-port %d reaches that port of this machine's 127.0.0.1, as %s", port, network.HostName)
	case a.Opens == "":
		return ""
	case name == "":
		return "what opens it: --allow " + qemu.ShellQuote([]string{a.Opens})
	}
	return "what opens it: sandbox net allow " + qemu.ShellQuote([]string{name, a.Opens})
}

// opensRequest is the rule that opens a request that no rule opens, if one does.
func opensRequest(v policy.Verdict, method, address, host string, port uint16) string {
	u, err := url.Parse(address)
	if err != nil || v.Rule != policy.RuleNotAllowed {
		return ""
	}
	return policy.RuleForRequest(policy.Request{Scheme: u.Scheme, Host: host, Port: port, Method: method, Path: cmp.Or(u.EscapedPath(), "/")})
}

// judgeRequest is what becomes of a request to a host that is open to some; without a
// rule if all or none are, or if it is not said which one is meant.
func judgeRequest(l *policy.Allowlist, method, address, host string, port uint16, proto policy.Proto) policy.Verdict {
	u, err := url.Parse(address)
	if l == nil || err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || !l.Name(host, port, proto).Requests {
		return policy.Verdict{}
	}
	return l.Request(policy.Request{Scheme: u.Scheme, Host: host, Port: port, Method: method, Path: cmp.Or(u.EscapedPath(), "/"), Query: u.RawQuery})
}
