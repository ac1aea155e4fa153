package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/internal/terminal"
	"github.com/sourcery-zone/sandbox/machine/layout"
)

// remoteHelper is the name by which Git starts this program for an address such as sandbox::work (gitremote-helpers(7)).
const remoteHelper = "git-remote-sandbox"

// runRemoteHelper is the program under that name. Its arguments are the name of a remote and the address.
func runRemoteHelper(ctx context.Context, args []string) error {
	if len(args) != 3 {
		return usage("git starts this program, for addresses such as sandbox::work: git fetch sandbox::work")
	}
	name, dir, err := parseRemote(args[2])
	if err != nil {
		return err
	}
	r := gitRemote{in: bufio.NewReader(os.Stdin), out: os.Stdout, notes: notes(), dir: dir}
	r.dial = func() (*agent.Client, []string, error) {
		s, err := sandboxNamed(name)
		if err != nil {
			return nil, nil, err
		}
		config, err := s.Config()
		if err != nil {
			return nil, nil, err
		}
		var shared []string
		for _, share := range config.Shares {
			shared = append(shared, share.Target)
		}
		client, err := s.Dial(ctx)
		return client, shared, err
	}
	return r.serve(ctx)
}

// parseRemote reads NAME[/PATH], what Git leaves of an address. An empty path stands for the repository that is shared.
func parseRemote(address string) (name, dir string, err error) {
	name, dir, _ = strings.Cut(address, "/")
	if layout.CheckName(name) != nil {
		return "", "", fmt.Errorf("%q names no repository of a sandbox: write sandbox::NAME, or sandbox::NAME/PATH, where PATH starts at the home of the guest's user", address)
	}
	return name, strings.TrimPrefix(dir, "~/"), nil
}

// gitRemote connects Git here with Git in a guest.
type gitRemote struct {
	in    *bufio.Reader
	out   io.Writer
	notes *terminal.Writer
	dir   string // the repository in the guest; empty: the first of those that are shared
	dial  func() (client *agent.Client, shared []string, err error)
}

// serve answers Git's commands until it wants no more, or is connected and done.
func (r *gitRemote) serve(ctx context.Context) error {
	for {
		line, err := r.in.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		answer := "fallback\n" // Git says that it cannot
		switch command, service, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " "); {
		case command == "":
			return nil
		case command == "capabilities":
			answer = "connect\n\n"
		case command != "connect":
			return fmt.Errorf("git asks for %q, which is not known", command)
		case service == "git-upload-pack", service == "git-receive-pack":
			return r.connect(ctx, strings.TrimPrefix(service, "git-"))
		}
		if _, err := io.WriteString(r.out, answer); err != nil {
			return err
		}
	}
}

// inFirstRepository runs git $0 in the first of the directories that is a repository.
const inFirstRepository = `for dir do
	if [ -e "$dir/.git" ] || [ -e "$dir/objects" ]; then exec git "$0" "$dir"; fi
done
echo "none of the shared directories is a repository of git: name one, as in sandbox::NAME/PATH" >&2
exit 1`

// connect runs a command of Git in the guest with what Git here says.
func (r *gitRemote) connect(ctx context.Context, service string) error {
	client, shared, err := r.dial()
	if err != nil {
		return err
	}
	defer client.Close()
	argv := []string{"git", service, "--", r.dir}
	if r.dir == "" {
		argv = append([]string{"sh", "-c", inFirstRepository, service}, shared...)
	}
	cmd := client.Command(ctx, argv...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = r.in, &packetFilter{w: r.out, pack: service == "upload-pack"}, r.notes
	if err := cmd.Start(); err != nil {
		return err
	}
	if _, err := io.WriteString(r.out, "\n"); err != nil { // it is connected
		return err
	}
	if err = cmp.Or(cmd.Wait(), r.notes.Close()); err != nil {
		return fmt.Errorf("git %s in the guest: %w", service, err)
	}
	return nil
}

// packetFilter passes on what a guest's Git says, in which text does nothing to a terminal. Git shows most of what it is
// told, and does not look at it. The stream consists of packets (gitprotocol-common(5)), those of side band 1 hold a pack
// if pack is set, and all others text. What is no packet is a pack to the end, or a mistake that ends Git.
type packetFilter struct {
	w    io.Writer
	pack bool
	held []byte // the beginning of a packet
	raw  bool
}

const packetHead = 4 // hexadecimal digits, the length with themselves; less is a mark without content

func (f *packetFilter) Write(p []byte) (int, error) {
	f.held = append(f.held, p...)
	done := 0
	for rest := f.held; !f.raw && len(rest) >= packetHead; rest = f.held[done:] {
		n, err := strconv.ParseUint(string(rest[:packetHead]), 16, 16)
		if f.raw = err != nil; f.raw {
			break
		}
		n = max(n, packetHead)
		if uint64(len(rest)) < n {
			break
		}
		f.mask(rest[packetHead:n])
		done += int(n)
	}
	if f.raw {
		done = len(f.held)
	}
	_, err := f.w.Write(f.held[:done])
	f.held = append(f.held[:0], f.held[done:]...)
	return len(p), err
}

func (f *packetFilter) mask(content []byte) {
	if len(content) == 0 || f.pack && content[0] == 1 {
		return
	}
	if content[0] <= 3 { // the number of a band
		content = content[1:]
	}
	terminal.Mask(content)
}
