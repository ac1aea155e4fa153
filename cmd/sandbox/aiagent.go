package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/project"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/login"
	"github.com/sourcery-zone/sandbox/network/secret"
)

// commandOf is what run is to run: what is given, or else the AI agent's own command. One that runs in the background
// gets none.
func commandOf(c *cli.Context) []string {
	argv := c.Args().Slice()
	if agent, err := project.FindAIAgent(c.String("agent")); err == nil && len(argv) == 0 && !c.Bool("detach") {
		argv = []string{agent.Command}
	}
	return argv
}

// aiAgentNeeds are the rules and the secrets of the AI agent that was chosen, without secrets that are named otherwise.
func aiAgentNeeds(c *cli.Context, host *machine.Host) (allow, secrets []string, err error) {
	agent, err := project.FindAIAgent(c.String("agent"))
	if err != nil {
		return nil, nil, err
	}
	var named []string
	for _, text := range c.StringSlice("secret") {
		name, _, _ := strings.Cut(text, "@")
		name, _, _ = strings.Cut(name, "=")
		named = append(named, name)
	}
	from, logins := host.Sources(), login.Store{Dir: host.Dirs.Logins()}
	has := func(s secret.Spec) bool {
		if s.Source.Kind == secret.FromLogin { // the start says what is wrong with one that there is
			_, err := logins.Get(s.Source.Of)
			return !errors.Is(err, os.ErrNotExist)
		}
		_, err := from.Value(c.Context, s)
		return err == nil
	}
	allow, secrets, err = agent.Needs(has, named)
	if missing, ok := errors.AsType[*project.MissingSecretError](err); ok {
		err = remedy.Add(err, remedy.StoreSecret, missing.Agent.Variables()[0])
		for _, provider := range missing.Agent.Logins() {
			err = remedy.Add(err, remedy.LogIn, provider)
		}
	}
	return allow, secrets, err
}

// addAIAgent adds to the configuration what the AI agent needs that was chosen, if one was.
func addAIAgent(c *cli.Context, host *machine.Host, config *machine.Config, found sources) error {
	name := c.String("agent")
	if name == "" {
		return nil
	}
	allow, secrets, err := aiAgentNeeds(c, host)
	if err != nil {
		return err
	}
	source := project.Source{Layer: found["agent"].Layer, Name: "agent " + name}
	if config.Network == network.ModeAllowlist || config.Network == network.ModeAsk {
		found.extend("allow", &config.Allow, allow, source)
	}
	found.extend("secret", &config.Secrets, secrets, source)
	return nil
}

// explainAIAgent shows what an AI agent's preset does.
func explainAIAgent(c *cli.Context, host *machine.Host) error {
	if c.String("agent") == "" {
		return usage("--explain shows what --agent stands for: name one, such as --agent %s", project.AIAgents()[0])
	}
	allow, secrets, err := aiAgentNeeds(c, host)
	if err != nil {
		return err
	}
	asks := []project.Ask{{Option: "net", Value: string(network.ModeAllowlist)}}
	for _, rule := range allow {
		asks = append(asks, project.Ask{Option: "allow", Value: rule})
	}
	for _, text := range secrets {
		asks = append(asks, project.Ask{Option: "secret", Value: text})
	}
	if home := c.String("agent-home"); home != project.AgentHomeNone {
		asks = append(asks, project.Ask{Option: "agent-home", Value: home})
	}
	for _, flag := range append(asFlags(asks), "-- "+strings.Join(commandOf(c), " ")) {
		fmt.Fprintln(c.App.Writer, flag)
	}
	return nil
}

// explainNotFound says where an AI agent comes from that is not in the image.
func explainNotFound(err error, c *cli.Context, config machine.Config) error {
	const notFound = 127
	agent, unknown := project.FindAIAgent(c.String("agent"))
	if ended, ok := errors.AsType[*exitCode](err); ok && ended.code == notFound && unknown == nil && agent.Package != "" {
		fmt.Fprintf(notes(), "sandbox: note: the image %s seems to have no %s: sandbox image build --recipe debian --name %[2]s --with %[3]s makes one that has, for --image %[2]s\n", config.Image, agent.Command, agent.Package)
	}
	return err
}

// noteReadableKeys tells of variables that could have stayed on this machine.
func noteReadableKeys(env []string) {
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		if text := project.SecretOf(name); text != "" {
			fmt.Fprintf(notes(), "sandbox: note: whatever runs in the guest can read %s and send it away: with --secret %s it stays on this machine\n", name, text)
		}
	}
}
