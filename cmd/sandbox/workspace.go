package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/internal/terminal"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/workspace"
)

func ofShare() cli.Flag {
	return &cli.StringFlag{Name: "share", Usage: "only the share of this `DIRECTORY`, of this machine or of the guest"}
}

func diffCommand() *cli.Command {
	return &cli.Command{
		Name:      "diff",
		Usage:     "show what a guest has changed in its copy-on-write shares",
		ArgsUsage: "NAME [PATH...]",
		Description: `A guest that has a directory as --share DIRECTORY:cow keeps what it writes there for
itself, until you apply it. PATH is relative to the shared directory. What is compared are
the files of now: what you have changed since the sandbox was made, and the guest has changed
too, is a conflict. What the rules of the share refuse is named.

EXAMPLES
   sandbox diff work
   sandbox diff --stat work src
   sandbox diff --json work | jq -r '.changes[].path'
   sandbox diff --tool meld work`,
		Flags: []cli.Flag{
			ofShare(),
			&cli.BoolFlag{Name: "stat", Usage: "print a line for each change"},
			&cli.BoolFlag{Name: "json", Usage: "print the changes as JSON, without their lines"},
			&cli.StringFlag{Name: "tool", Usage: "run `PROGRAM` with two directories: what you have, and what the guest has, of what differs"},
		},
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			if flags := []bool{c.Bool("stat"), c.Bool("json"), c.IsSet("tool")}; len(slices.DeleteFunc(flags, func(is bool) bool { return !is })) > 1 {
				return usage("sandbox diff takes one of --stat, --json and --tool")
			}
			return withChanges(c, false, func(ctx context.Context, shares []changedShare) error {
				switch {
				case c.Bool("json"):
					return diffJSON(c.App.Writer, shares)
				case c.IsSet("tool"):
					return diffTool(ctx, c.String("tool"), shares)
				}
				return diffText(ctx, c.App.Writer, shares, c.Bool("stat"))
			})
		},
	}
}

func applyCommand() *cli.Command {
	return &cli.Command{
		Name:      "apply",
		Usage:     "take what a guest has changed in a copy-on-write share",
		ArgsUsage: "NAME [PATH...]",
		Description: `You are asked about each file: y takes it, n leaves it, d shows the difference, a takes it
and all that follow, q leaves all that follow. PATH is relative to the shared directory, and
stands for all that is in it. With --yes nobody is asked.

What the rules of the share refuse is left, as are devices, links that lead out of the share,
and set-user-ID bits. A text that has changed on this machine, too, since the sandbox was made is
merged, if git knew it then, and the merge is what is shown and taken. Where both have changed
the same lines, and where nothing can be merged, it is a conflict and left, unless you take the
guest's by y or --overwrite, or both sides of each such place, between marks, by m or --merge.

EXAMPLES
   sandbox apply work
   sandbox apply --yes work src docs/index.md
   sandbox apply --dry-run work`,
		Flags: []cli.Flag{
			ofShare(),
			&cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "take everything that is neither refused nor a conflict"},
			&cli.BoolFlag{Name: "overwrite", Usage: "take the guest's side of conflicts: what you have changed in these files is lost"},
			&cli.BoolFlag{Name: "merge", Usage: "take both sides of conflicts, between marks as git makes them, where they can be merged"},
			&cli.BoolFlag{Name: "dry-run", Usage: "only say what would be done"},
		},
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			a := applying{out: c.App.Writer, notes: notes(), dry: c.Bool("dry-run"), overwrite: c.Bool("overwrite"), merge: c.Bool("merge"), all: c.Bool("yes")}
			if a.overwrite && a.merge {
				return usage("--overwrite takes one side of a conflict, and --merge both: give one of them")
			}
			if !a.dry && !a.all {
				if !isTerminal(os.Stdin) || !isTerminal(os.Stderr) {
					return usage("without a terminal nobody can be asked: give --yes to take everything, or name the paths with it")
				}
				a.in = bufio.NewReader(os.Stdin)
			}
			return withChanges(c, !a.dry, a.run)
		},
	}
}

func discardCommand() *cli.Command {
	return &cli.Command{
		Name:      "discard",
		Usage:     "undo what a guest has changed in a copy-on-write share",
		ArgsUsage: "NAME [PATH...]",
		Description: `The guest gets back what this machine has, while its programs run. PATH is relative to the
shared directory, and stands for all that is in it; without one, all changes are discarded.

EXAMPLES
   sandbox discard work src/generated
   sandbox discard --yes work`,
		Flags: []cli.Flag{
			ofShare(),
			&cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask"},
		},
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			return withChanges(c, true, func(ctx context.Context, shares []changedShare) error {
				return discardChanges(ctx, c, shares)
			})
		},
	}
}

// changedShare is a copy-on-write share with the changes that are asked about.
type changedShare struct {
	*machine.Workspace
	changes []workspace.Change
	all     []workspace.Change // whether asked about or not
}

// withChanges opens the shares and the changes that a command line names. Whoever changes something gets one share.
func withChanges(c *cli.Context, change bool, do func(context.Context, []changedShare) error) (err error) {
	if c.NArg() < 1 {
		return usage("sandbox %s needs the name of a sandbox: sandbox ls shows them", c.Command.Name)
	}
	s, err := sandboxNamed(c.Args().First())
	if err != nil {
		return err
	}
	spaces, err := s.Workspaces(c.Context, change)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, spaces.Close()) }()
	chosen := spaces.Shares
	if name := c.String("share"); name != "" {
		abs, _ := filepath.Abs(name)
		chosen = slices.DeleteFunc(slices.Clone(chosen), func(w *machine.Workspace) bool {
			return w.Config.Target != name && w.Config.Source != abs && filepath.Base(w.Config.Target) != name
		})
		if len(chosen) == 0 {
			return fmt.Errorf("%s has no copy-on-write share of %s: sandbox inspect %s lists its shares", s.Name, name, s.Name)
		}
	}
	if len(chosen) > 1 && (change || c.NArg() > 1) {
		return usage("%s has several copy-on-write shares: name one with --share, such as --share %s", s.Name, chosen[0].Config.Target)
	}
	var shares []changedShare
	for _, w := range chosen {
		all, err := w.Changes(c.Context)
		if err != nil {
			return err
		}
		changes, err := selected(all, c.Args().Tail())
		if err != nil {
			return err
		}
		shares = append(shares, changedShare{w, changes, all})
	}
	err = do(c.Context, shares)
	if change {
		err = errors.Join(err, spaces.Save())
	}
	return err
}

// selected are the changes at the paths, at each of which there must be one.
func selected(changes []workspace.Change, paths []string) ([]workspace.Change, error) {
	for _, p := range paths {
		if !slices.ContainsFunc(changes, func(c workspace.Change) bool { return c.Within([]string{p}) }) {
			return nil, fmt.Errorf("the guest has changed nothing at %s (a path is relative to the shared directory)", p)
		}
	}
	return slices.DeleteFunc(slices.Clone(changes), func(c workspace.Change) bool { return !c.Within(paths) }), nil
}

func diffJSON(w io.Writer, shares []changedShare) error {
	type form struct {
		Source  string             `json:"source"`
		Target  string             `json:"target"`
		Changes []workspace.Change `json:"changes"`
	}
	for _, s := range shares {
		if err := printJSON(w, form{s.Config.Source, s.Config.Target, append([]workspace.Change{}, s.changes...)}); err != nil {
			return err
		}
	}
	return nil
}

func diffText(ctx context.Context, w io.Writer, shares []changedShare, stat bool) error {
	for _, s := range shares {
		if len(shares) > 1 {
			fmt.Fprintf(w, "%s:\n", terminal.Line(s.Config.Source))
		}
		var added, removed int
		for _, c := range s.changes {
			p, text, err := seen(ctx, s, c)
			if changing(err) {
				fmt.Fprintf(w, "! %s is changing: %v\n", workspace.Name(c.Path), err)
				continue
			}
			if err != nil {
				return err
			}
			added, removed = added+text.Added, removed+text.Removed
			if stat {
				fmt.Fprintln(w, summary(p, text))
				continue
			}
			fmt.Fprint(w, text.Diff)
			if p.Merged() {
				fmt.Fprintf(w, "! merged with what has changed here in %s\n", workspace.Name(c.Path))
			}
			if trouble := troubleOf(p); trouble != "" {
				fmt.Fprintf(w, "! %s\n", trouble)
			}
		}
		if stat {
			fmt.Fprintf(w, "%d changes, %d lines added, %d removed\n", len(s.changes), added, removed)
		}
	}
	return nil
}

// seen is a change as it is shown.
func seen(ctx context.Context, s changedShare, c workspace.Change) (*workspace.Pending, workspace.Text, error) {
	p, err := s.Look(ctx, c)
	if err != nil {
		return nil, workspace.Text{}, err
	}
	m, err := p.Merge(ctx)
	if err != nil {
		return nil, workspace.Text{}, err
	}
	if m != nil && m.Conflicts == 0 {
		p.Take(m)
	}
	text, err := p.Text(ctx)
	return p, text, err
}

// changing tells whether an error is of a single file that somebody is writing to or removing, in the guest or here.
func changing(err error) bool {
	_, guest := errors.AsType[*agent.WorkspaceError](err)
	_, host := errors.AsType[*workspace.ConflictError](err)
	return guest || host
}

// summary is a line about a change.
func summary(p *workspace.Pending, text workspace.Text) string {
	line := fmt.Sprintf("%-8s %s", p.Kind, workspace.Name(p.Path))
	if p.Merged() {
		line += ", merged with what has changed here"
	}
	switch {
	case p.ModeOnly:
		line += fmt.Sprintf(" (mode %v to %v)", p.Old.Mode.Perm(), p.New.Mode.Perm())
	case text.Binary:
		line += fmt.Sprintf(" (%s to %s)", bytesText(p.Old.Size), bytesText(p.New.Size))
	case text.Added+text.Removed > 0:
		line += fmt.Sprintf(" (+%d -%d)", text.Added, text.Removed)
	case p.Type() != "file":
		line += " (" + p.Type() + ")"
	}
	if trouble := troubleOf(p); trouble != "" {
		line += ": " + trouble
	}
	return line
}

// troubleOf says why a change is not simply applied.
func troubleOf(p *workspace.Pending) string {
	switch {
	case p.Refused != nil && p.Refused.Rule != "":
		return fmt.Sprintf("refused by the rule %s: %s", p.Refused.Rule, p.Refused.Why)
	case p.Refused != nil:
		return "refused: it " + p.Refused.Why
	case p.Conflict != "":
		return "conflict: " + p.Conflict
	}
	return ""
}

// diffTool runs a program as git difftool --dir-diff does.
func diffTool(ctx context.Context, tool string, shares []changedShare) (err error) {
	for _, s := range shares {
		dir, err := os.MkdirTemp("", "sandbox-diff-") // 0700
		if err != nil {
			return err
		}
		err = errors.Join(runTool(ctx, tool, dir, s), os.RemoveAll(dir))
		if err != nil {
			return err
		}
	}
	return nil
}

func runTool(ctx context.Context, tool, dir string, s changedShare) error {
	var sides [2]*os.Root
	for i, name := range []string{"here", "sandbox"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			return err
		}
		root, err := os.OpenRoot(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		defer root.Close()
		sides[i] = root
	}
	for _, c := range s.changes {
		if err := s.WriteSides(ctx, c, sides[0], sides[1]); err != nil {
			return err
		}
	}
	// As git runs its tools: a line for the shell, with what it is about as arguments.
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", tool+` "$@"`, tool, "here", "sandbox")
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = dir, os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 1 {
		return nil // how diff says that there are differences
	}
	if err != nil {
		return fmt.Errorf("running %s: %w", tool, err)
	}
	return nil
}

// applying takes changes, and says of each what became of it.
type applying struct {
	in             *bufio.Reader // nil: nobody is asked
	out, notes     io.Writer
	dry            bool
	all, overwrite bool
	merge          bool

	left int
	quit bool
}

func (a *applying) run(ctx context.Context, shares []changedShare) error {
	for _, s := range shares {
		applier := s.Apply(s.all)
		for _, c := range s.changes {
			if a.quit {
				break
			}
			if err := a.change(ctx, s, applier, c); err != nil {
				return errors.Join(err, a.finish(ctx, s))
			}
		}
		if err := a.finish(ctx, s); err != nil {
			return err
		}
	}
	if a.left > 0 {
		return fmt.Errorf("%d of the changes were not applied", a.left)
	}
	return nil
}

func (a *applying) finish(ctx context.Context, s changedShare) error {
	if a.dry {
		return nil
	}
	return s.Finish(context.WithoutCancel(ctx))
}

// leave goes on without a file that changes while it is looked at. Other errors it returns.
func (a *applying) leave(err error) error {
	if !changing(err) {
		return err
	}
	a.left++
	fmt.Fprintf(a.notes, "sandbox: %v\n", err)
	return nil
}

// change returns an error after which it makes no sense to go on.
func (a *applying) change(ctx context.Context, s changedShare, applier *workspace.Applier, c workspace.Change) (err error) {
	get := s.Fetch
	if a.dry {
		get = s.Look
	}
	p, err := get(ctx, c)
	if err != nil {
		return a.leave(err)
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	conflicting, err := a.takeMerge(ctx, p)
	if err != nil {
		return a.leave(err)
	}
	overwrite := a.overwrite
	if !a.all && !a.dry && p.Refused == nil && p.Type() != "directory" {
		taken, err := a.ask(ctx, p, conflicting)
		if err != nil || !taken {
			return err
		}
		overwrite = true // it was seen
	}
	if !a.all && !a.dry && p.Type() == "directory" {
		// It comes and goes with what is in it.
		if c.Kind == workspace.Added || a.quit {
			return nil
		}
	}
	if a.dry {
		err = refusal(p, overwrite)
	} else {
		err = applier.Commit(ctx, p, overwrite)
	}
	_, refused := errors.AsType[*workspace.RefusedError](err)
	_, conflict := errors.AsType[*workspace.ConflictError](err)
	switch {
	case err == nil:
		done := string(c.Kind)
		if p.Merged() {
			done = "merged"
		}
		fmt.Fprintf(a.out, "%s %s\n", done, workspace.Name(c.Path))
	case !a.all && conflict && p.Type() == "directory": // something in it stays
	case refused || conflict:
		a.left++
		fmt.Fprintf(a.notes, "sandbox: %v\n", err)
	default:
		return err
	}
	return nil
}

// takeMerge merges what both sides have changed, unless the guest's is wanted as it is. A merge in which there are conflicts
// is taken if that is wanted, and else returned.
func (a *applying) takeMerge(ctx context.Context, p *workspace.Pending) (conflicting *workspace.Merge, err error) {
	if a.overwrite {
		return nil, nil
	}
	m, err := p.Merge(ctx)
	if err != nil || m == nil {
		return nil, err
	}
	if m.Conflicts > 0 && !a.merge {
		return m, nil
	}
	p.Take(m)
	return nil, nil
}

// refusal is what an attempt would end with, as far as that is known.
func refusal(p *workspace.Pending, overwrite bool) error {
	switch {
	case p.Refused != nil:
		return p.Refused
	case p.Conflict != "" && !overwrite:
		return &workspace.ConflictError{Path: p.Path, Why: p.Conflict}
	}
	return nil
}

// ask asks about one change, of which there can be a merge with conflicts.
func (a *applying) ask(ctx context.Context, p *workspace.Pending, conflicting *workspace.Merge) (taken bool, err error) {
	text, err := p.Text(ctx)
	if err != nil {
		return false, err
	}
	keys, help := "y,n,d,a,q", ""
	if conflicting != nil {
		keys, help = "y,n,d,m,a,q", "; m: merge it, with both sides between marks where they differ, and ask again"
	}
	for {
		fmt.Fprintf(a.notes, "%s\nTake it? [%s] ", summary(p, text), keys)
		line, err := a.in.ReadString('\n')
		if err != nil {
			a.quit = true
			fmt.Fprintln(a.notes)
			return false, nil
		}
		switch key := strings.ToLower(strings.TrimSpace(line)); {
		case key == "m" && conflicting != nil:
			p.Take(conflicting)
			return a.ask(ctx, p, nil)
		case key == "y" || key == "yes":
			return true, nil
		case key == "n" || key == "no":
			return false, nil
		case key == "a" || key == "all":
			a.all = true
			return true, nil
		case key == "q" || key == "quit":
			a.quit = true
			return false, nil
		case key == "d" || key == "diff":
			fmt.Fprint(a.notes, text.Diff)
		default:
			fmt.Fprintln(a.notes, "y: take it; n: leave it; d: show the difference; a: take it and all that follow but conflicts; q: leave it and all that follow"+help)
		}
	}
}

func discardChanges(ctx context.Context, c *cli.Context, shares []changedShare) error {
	s := shares[0] // there is one
	if len(s.changes) == 0 {
		return nil
	}
	if !c.Bool("yes") {
		if !isTerminal(os.Stdin) || !isTerminal(os.Stderr) {
			return usage("without a terminal nobody can be asked: give --yes to discard %d changes", len(s.changes))
		}
		if !confirm(os.Stdin, notes(), fmt.Sprintf("Undo %d changes in the sandbox, for good?", len(s.changes))) {
			return errors.New("nothing was discarded")
		}
	}
	if err := s.Discard(ctx, s.changes); err != nil {
		return err
	}
	for _, change := range s.changes {
		fmt.Fprintln(c.App.Writer, workspace.Name(change.Path))
	}
	return s.Guest.Refresh(ctx)
}
