package virtiofs_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/sourcery-zone/sandbox/virtiofs"
)

// A project becomes visible to a guest, read-only. The virtual machine then connects a vhost-user-fs device to
// the socket.
func Example() {
	ctx := context.Background()
	share, err := virtiofs.ParseShare("~/src/app:work:ro", "/")
	if err != nil {
		log.Fatal(err)
	}
	rules := virtiofs.CheckOptions{Home: os.Getenv("HOME")}
	if share, err = share.Admit(rules); err != nil { // once; the result is kept
		log.Fatal(err)
	}
	daemon, err := virtiofs.Find(ctx)
	if err != nil {
		log.Fatal(err)
	}
	dir, err := share.Open(rules) // each time
	if err != nil {
		log.Fatal(err)
	}
	defer dir.Close()
	uid, gid, groups, err := virtiofs.Owner(dir)
	if err != nil {
		log.Fatal(err)
	}
	server, err := daemon.Start(ctx, virtiofs.ServerConfig{
		Directory: dir, ReadOnly: share.ReadOnly, Socket: "/run/user/1000/app.sock",
		GuestUID: 1000, GuestGID: 1000, HostUID: uid, HostGID: gid, HostGroups: groups, Log: os.Stderr,
	})
	if err != nil {
		log.Fatal(err)
	}
	// The virtual machine runs here, and ends before the server is stopped.
	if err := server.Stop(ctx); err != nil {
		log.Fatal(err)
	}
}

func ExampleParseShare() {
	share, err := virtiofs.ParseShare(`data\:2024:/srv/data:ro`, "/nowhere")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(share.Source, share.Target, share.ReadOnly)
	_, err = virtiofs.ParseShare("app:work:r0", "/nowhere")
	fmt.Println(err)
	// Output:
	// /nowhere/data:2024 /srv/data true
	// the share "app:work:r0" is not valid: at character 10, "r0" is not an option: there are ro, rw, cow, clone, objects, same-path, watch, quota=SIZE, rules=safe, rules=none, worktree=NAME, allow=PATTERN, refuse=PATTERN and hide=PATTERN (a colon within a path is written \:); write HOST[:GUEST][:OPTION,…], for example ~/src/app:app:ro
}
