package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
)

// The places in which a guest works with files: a share with the built-in rules, one with none, a copy-on-write share, and
// the guest's own disk.
const (
	placeJudged = "judged"
	placePlain  = "plain"
	placeCow    = "cow"
	placeDisk   = "disk"
)

// places says where they are in the guest.
var places = map[string]string{placeJudged: "/srv/judged", placePlain: "/srv/plain", placeCow: "/srv/cow", placeDisk: "/var/tmp/disk"}

// work is something that is done in each place.
type work struct {
	figure string
	goal   float64 // of a share with rules, compared with one without
	// Lines of the shell. The first is not measured.
	prepare, line string
}

// The goals are that rules cost a tenth of what reads and looks up, and less than it takes without them of what makes and
// renames.
const (
	goalReads   = 1 / 0.9
	goalChanges = 1 / 0.6
)

// works are done in this order, so that one can use what the one before has left.
var works = []work{
	{"share-clone", goalChanges, "rm -rf clone", "git clone -q file:///var/tmp/origin clone"},
	{"share-status", goalReads, "git -C clone status", "git -C clone status"},
	{"share-read", goalReads, "", "tar -cf - clone/src | cat >/dev/null"},
	{"share-unpack", goalChanges, "rm -rf tree && mkdir tree", "tar -xf /var/tmp/files.tar -C tree"},
	{"share-rename", goalChanges, "", "perl -e 'rename $_, \"$_.old\" or die for glob \"tree/src/*/lib/*\"'"},
	{"share-remove", goalChanges, "", "rm -r tree"},
	{"share-write-big", goalReads, "rm -f big", "dd if=/dev/zero of=big bs=1M count=64 conv=fsync status=none"},
	{"share-read-big", goalReads, "", "dd if=big of=/dev/null bs=1M status=none"},
}

// origin makes, on the guest's disk, a repository of Git and an archive with small files, as many as $1.
const origin = `set -e
mkdir -p /var/tmp/disk /var/tmp/origin
cd /var/tmp/origin
git init -q -b main
i=0
while [ $i -lt $1 ]; do
	[ $((i % 50)) -ne 0 ] || { dir=src/module$((i / 50))/lib; mkdir -p $dir; }
	echo "export const value$i = $i // of a small file, as packages of npm have many" >$dir/file$i.js
	i=$((i + 1))
done
git add .
git -c user.name=bench -c user.email=bench@localhost commit -qm files
git repack -adq
tar -cf /var/tmp/files.tar src`

// shares compares the places.
func shares(ctx context.Context, b *bench) ([]figure, error) {
	const name = "shares"
	args := []string{"--disk", "8G"}
	for place, options := range map[string]string{placeJudged: "", placePlain: ":rules=none", placeCow: ":cow"} {
		dir := filepath.Join(b.dir, place)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, err
		}
		args = append(args, "--share", dir+":"+places[place]+options)
	}
	if _, err := b.startRunning(ctx, name, args...); err != nil {
		return nil, err
	}
	defer b.remove(name)
	client, err := b.dial(ctx, name)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	if _, err := b.shell(ctx, client, "", origin, fmt.Sprint(b.files)); err != nil {
		return nil, err
	}
	took := map[string]map[string]series{} // by figure and place
	for _, w := range works {
		took[w.figure] = map[string]series{}
	}
	for range b.repeat {
		for _, place := range []string{placeJudged, placePlain, placeCow, placeDisk} {
			for _, w := range works {
				if _, err := b.shell(ctx, client, places[place], w.prepare); err != nil {
					return nil, err
				}
				once, err := b.shell(ctx, client, places[place], w.line)
				if err != nil {
					return nil, err
				}
				took[w.figure][place] = append(took[w.figure][place], once)
			}
		}
	}
	var figures []figure
	for _, w := range works {
		of := took[w.figure]
		figures = append(figures,
			ratio(w.figure, of[placeJudged], of[placePlain]).with(w.goal),
			ratio(w.figure+"-vs-disk", of[placeJudged], of[placeDisk]),
			ratio(w.figure+"-cow", of[placeCow], of[placeDisk]),
		)
	}
	return figures, nil
}

// shell runs a script of the shell in a directory of the guest, and returns how long it took.
func (b *bench) shell(ctx context.Context, client *agent.Client, dir, script string, args ...string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	var stderr bytes.Buffer
	cmd := client.Command(ctx, append([]string{"sh", "-c", script, "sh"}, args...)...)
	cmd.Dir, cmd.Stderr = dir, &stderr
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("%s, in %s: %w: %s", script, dir, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return time.Since(start), nil
}

// attempted is how many attempts sandbox try makes here.
const attempted = 5

// try compares several attempts from one prepared sandbox with as many starts.
func try(ctx context.Context, b *bench) ([]figure, error) {
	const name = "tried"
	share := filepath.Join(b.dir, name)
	if err := os.Mkdir(share, 0o755); err != nil {
		return nil, err
	}
	share += ":cow"
	if _, err := b.startRunning(ctx, name, "--share", share); err != nil {
		return nil, err
	}
	defer b.remove(name)
	var tries, starts series
	for range b.repeat {
		took, err := b.run(ctx, nil, "try", "-n", fmt.Sprint(attempted), name, "--", "true")
		b.removeAll(name + "-")
		if err != nil {
			return nil, err
		}
		tries = append(tries, took)
		start := time.Now()
		for range attempted {
			if _, err := b.run(ctx, nil, "run", "--rm", "--share", share, "--", "true"); err != nil {
				return nil, err
			}
		}
		starts = append(starts, time.Since(start))
	}
	return []figure{ratio("try", tries, starts).with(0.4)}, nil
}

// removeAll removes the sandboxes whose names begin like that.
func (b *bench) removeAll(prefix string) {
	all, err := b.host.List()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	for _, s := range all {
		if strings.HasPrefix(s.Name, prefix) {
			b.remove(s.Name)
		}
	}
}
