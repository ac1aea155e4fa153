package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/agent/transfer"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/internal/terminal"
	"github.com/sourcery-zone/sandbox/internal/trust"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/agenthome"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/machine/project"
	"github.com/sourcery-zone/sandbox/virtiofs"
	"github.com/sourcery-zone/sandbox/virtiofs/rules"
)

// applyAgentHome gives the option the value of the settings files, unless the command line or the environment has set it. The
// project's counts where it gives no more than what the user would give without it.
func applyAgentHome(c *cli.Context, files []project.File, found sources) error {
	const name = "agent-home"
	if found.has(name) {
		return nil
	}
	more := project.Find(name).Values
	for _, layer := range []project.Layer{project.UserFile, project.ProjectFile} {
		setting, source, ok := find(files, layer, name)
		switch {
		case !ok:
			continue
		case setting.Err != nil:
			return setting.Err
		}
		value, before := setting.Values[0], c.String(name)
		if layer == project.ProjectFile && slices.Index(more, value) > slices.Index(more, before) {
			return remedy.Add(setting.Errorf("%q gives the guest more than %q, which is what you give without it: a project's file may only give less", value, before), remedy.SetYourself, name)
		}
		if err := c.Set(name, value); err != nil {
			return err
		}
		found[name] = source
	}
	return nil
}

// agentHome is what the chosen AI agent is to find in its home.
type agentHome struct {
	agent    agenthome.Agent
	config   agenthome.Config
	dir      string // on this machine; empty: nothing of it goes along
	sessions bool   // are kept
}

// readAgentHome reads what of the user's goes along. Without an AI agent of which anything is known, it is nil.
func readAgentHome(c *cli.Context) (*agentHome, error) {
	wanted := c.String("agent-home")
	if !slices.Contains(project.AgentHomes, wanted) {
		return nil, fmt.Errorf("--agent-home is %q, but must be one of %s", wanted, strings.Join(project.AgentHomes, ", "))
	}
	known, ok := agenthome.Find(c.String("agent"))
	switch {
	case wanted != project.AgentHomeNone && c.String("agent") == "":
		return nil, fmt.Errorf("--agent-home %s is about an AI agent: choose one by --agent", wanted)
	case !ok && wanted != project.AgentHomeNone:
		return nil, fmt.Errorf("--agent-home %s: of %s, nothing is known that could go along", wanted, c.String("agent"))
	case !ok:
		return nil, nil
	}
	h := &agentHome{agent: known, sessions: wanted == project.AgentHomeSessions}
	if h.sessions && known.Sessions == "" {
		return nil, fmt.Errorf("--agent-home %s: %s has its sessions in one place with its logins, so that they cannot be kept: use %s", wanted, known.Name, project.AgentHomeConfig)
	}
	if wanted == project.AgentHomeNone {
		return h, nil
	}
	var err error
	if h.dir, err = known.Dir(os.Getenv); err != nil {
		return nil, err
	}
	h.config, err = known.Read(h.dir)
	return h, err
}

// explain tells what goes along, and where the sessions are kept.
func (h *agentHome) explain(dirs layout.Dirs, of string) error {
	if h == nil || h.dir == "" {
		return nil
	}
	names := strings.Join(h.config.Names(h.agent), ", ")
	if names == "" {
		names = "nothing"
	}
	fmt.Fprintf(notes(), "sandbox: note: of %s, the guest gets a copy of %s\n", shown(h.dir), terminal.Line(names))
	for _, left := range h.config.LeftOut {
		fmt.Fprintf(notes(), "sandbox: note: left out is %s\n", terminal.Line(left))
	}
	if !h.sessions || of == "" {
		return nil
	}
	share, err := h.sessionsOf(dirs, of)
	if err == nil {
		fmt.Fprintf(notes(), "sandbox: note: the sessions of %s are kept in %s, for all sandboxes of %s\n", h.agent.Name, shown(share.Source), shown(of))
	}
	return err
}

// share keeps the agent's sessions in a directory of the project's, which its sandboxes have in common.
func (h *agentHome) share(dirs layout.Dirs, config *machine.Config) error {
	if h == nil || !h.sessions {
		return nil
	}
	if config.Project == "" {
		return fmt.Errorf("the sessions of %s are kept for a project, and this sandbox is of none: share its directory, or make a %s in it", h.agent.Name, project.FileName)
	}
	share, err := h.sessionsOf(dirs, config.Project)
	if err != nil {
		return err
	}
	dir, err := trust.MakeDir(share.Source)
	if err != nil {
		return fmt.Errorf("keeping the sessions of %s: %w", h.agent.Name, err)
	}
	if err := dir.Close(); err != nil {
		return err
	}
	if share, err = share.Admit(virtiofs.CheckOptions{Private: []string{dirs.State}, AllowDangerous: true}); err != nil {
		return err
	}
	config.Shares, config.AgentSessions = append(config.Shares, share), share.Source
	return nil
}

// sessionsOf is the share of a project's sessions, of which the directory need not be there.
func (h *agentHome) sessionsOf(dirs layout.Dirs, of string) (virtiofs.Share, error) {
	state, err := filepath.EvalSymlinks(dirs.State)
	if err != nil {
		return virtiofs.Share{}, err
	}
	name := fmt.Sprintf("%s-%.8x", filepath.Base(of), sha256.Sum256([]byte(of)))
	source := filepath.Join(layout.Dirs{State: state}.Sessions(), name, h.agent.Name)
	// No program of the host takes anything from there.
	return virtiofs.Share{Source: source, Target: h.agent.Sessions, Rules: rules.Choice{None: true}}, nil
}

// copy puts the files into the home of a sandbox that was just made, whose agent works in that directory.
func (h *agentHome) copy(ctx context.Context, host *machine.Host, s *machine.Sandbox, dir string) error {
	if h == nil {
		return nil
	}
	config, err := s.Config()
	if err != nil {
		return err
	}
	img, err := host.Image(config.Image)
	if err != nil {
		return err
	}
	if dir == "" {
		dir = img.Manifest.User.Home
	}
	files, err := h.agent.Files(h.config, agenthome.Guest{Dir: dir, Placeholders: maps.Clone(config.Placeholders)})
	if err != nil || len(files) == 0 {
		return err
	}
	archive, err := agenthome.Archive(files)
	if err != nil {
		return err
	}
	client, err := s.Dial(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := transfer.Extract(ctx, client, bytes.NewReader(archive), ".", transfer.Options{}); err != nil {
		return fmt.Errorf("giving %s its configuration: %w", h.agent.Name, err)
	}
	return nil
}
