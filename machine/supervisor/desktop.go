package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/network/stack"
)

const (
	// notifyInterval is how often the desktop is told at most, as a guest asks as often as it likes.
	notifyInterval = 10 * time.Second
	// notifyPatience is how long that may take, where the session's bus starts first what shows notifications.
	notifyPatience = 5 * time.Second
)

// notifyDesktop shows the user's desktop, where there is one, what the guest waits for, until the sandbox ends.
func (v *supervisor) notifyDesktop() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-v.done
		cancel()
	}()
	for {
		select {
		case <-v.asked:
		case <-ctx.Done():
			return
		}
		summary := waiting(v.config.Name, v.currentState().Questions)
		if summary == "" {
			continue
		}
		if err := notify(ctx, os.Getenv("XDG_RUNTIME_DIR"), summary, v.askRemedy()); err != nil {
			v.log.Debug("the desktop does not show a question", "err", err)
		}
		select {
		case <-time.After(notifyInterval):
		case <-ctx.Done():
			return
		}
	}
}

// waiting says for what the guest waits, the last first; nothing if it does not. The guest's own reasons are left out: what is shown
// beside the words of others should be ours.
func waiting(name string, questions []machine.Question) string {
	open := slices.DeleteFunc(slices.Clone(questions), func(q machine.Question) bool { return q.Answer != "" })
	if len(open) == 0 {
		return ""
	}
	last := open[len(open)-1] // checkQuestion has seen it
	text := fmt.Sprintf("%s wants to %s", name, last.What())
	if more := len(open) - 1; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// notify shows a notification by way of the bus of the session whose runtime directory it is. Without a bus there is no desktop,
// and nothing is shown.
func notify(ctx context.Context, runtimeDir, summary, body string) error {
	path := filepath.Join(runtimeDir, "bus") // as of systemd and dbus-daemon(1)
	if info, err := os.Stat(path); err != nil || !filepath.IsAbs(path) || info.Mode()&os.ModeSocket == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, notifyPatience)
	defer cancel()
	socket, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return err
	}
	defer socket.Close()
	defer context.AfterFunc(ctx, func() { socket.Close() })() // the library waits for the bus without an end
	user := dbus.AuthExternal(strconv.Itoa(os.Getuid()))
	bus, err := dbus.ConnectUnix(socket.(*net.UnixConn), dbus.WithContext(ctx), dbus.WithAuth(user))
	if err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	defer bus.Close()
	const service = "org.freedesktop.Notifications" // of the Desktop Notifications Specification 1.2
	return bus.Object(service, "/org/freedesktop/Notifications").CallWithContext(ctx, service+".Notify", 0,
		"sandbox", uint32(0), "", summary, body, []string{}, map[string]dbus.Variant{}, int32(stack.QuestionTime.Milliseconds())).Err
}
