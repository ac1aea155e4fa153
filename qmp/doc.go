// Package qmp talks to QEMU's monitor in its machine protocol, QMP.
//
// A [Client] owns one connection. It satisfies the Monitor interface of
// github.com/digitalocean/go-qemu/qmp, so that package's typed commands in qmp/raw work over it, and
// it adds what that interface lacks: contexts, errors with QMP's class, and the connection's fate.
//
//	client := qmp.NewClient(conn, qmp.Options{})
//	defer client.Close()
//	if err := client.Handshake(ctx); err != nil { … }
//	err := client.Execute(ctx, "blockdev-del", map[string]any{"node-name": "disk0"}, nil)
//
// # Rules of the connection
//
// Replies are matched to commands by id, so any number of goroutines may call at once, and a call
// whose context ended leaves nothing behind that could confuse the next one. Messages may have any
// size. One goroutine reads; it is never held up by a caller or by a subscriber of events.
//
// The first thing that goes wrong with the connection ends it: every call in flight fails with the
// reason, [Client.Done] is closed and [Client.Err] keeps it. The reason matches
//
//   - io.EOF when the monitor closed the connection, which is what QEMU's end looks like, and
//     io.ErrUnexpectedEOF when it did so within a message;
//   - [ErrProtocol] when it sent something that is not QMP;
//   - net.ErrClosed after [Client.Close].
//
// # The files
//
// [Client.RunJob] follows a job to its end, a [Script] is a sequence of commands, waits and assertions,
// [Serve] offers one monitor to many clients, package qmp/libvirt reaches the monitors of libvirt's
// domains, and [Risk] tells commands that change nothing but the machine from the rest.
//
// transport.go moves messages and knows ids, but no command; client.go is the session on top;
// commands.go has a typed method for each command that the rest of the module uses; events.go
// distributes events; errors.go has the kinds of error; log.go the transcript; jobs.go follows jobs; script.go parses scripts,
// script_run.go runs them, and script_value.go has variables and assertions; serve.go is a monitor;
// schema.go is for completion; risk.go has
// the list of harmless commands.
package qmp
