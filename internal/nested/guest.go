package nested

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/image"
)

// Tools is where a guest has what Collect collected. The programs in its bin are
// on the path of Guest.Command.
const Tools = "/opt/tools"

// EnableKVM is a script for [Guest.Command] that gives the guest KVM and vsock, where root's programs run as others, too. The
// probe of KVM, which has a deadline, is repeated where a busy machine is too slow for it.
const EnableKVM = `modprobe -a kvm_amd vhost_vsock
chgrp kvm /dev/kvm
chmod 660 /dev/kvm
for try in 1 2 3 4 5; do
	sandbox doctor >/run/doctor || true
	if grep -q '^ok *kvm' /run/doctor; then break; fi
	rm -rf /var/cache/sandbox
done
grep -q '^ok *kvm' /run/doctor || { cat /run/doctor >&2; exit 1; }
`

// name is that of the sandbox that the guest is.
const name = "outer"

// Config is what Start needs.
type Config struct {
	Program string       // the built sandbox, which starts the guest
	Env     []string     // its environment, with directories for its state that no other guest has
	Image   *image.Image // of this guest, and there for those in it; a Debian, which has KVM's modules
	Tools   string       // what Collect filled; it must stay as long as the guest runs
}

// Guest is a machine that can have KVM. The caller calls Remove.
type Guest struct {
	program string
	env     []string
}

// Start starts a guest with 2 processors and 5 GiB of memory, which is enough
// for two guests in it, and brings the tools to their places. KVM and vsock are
// there once the guest has run EnableKVM.
func Start(ctx context.Context, c Config) (*Guest, error) {
	g := &Guest{program: c.Program, env: c.Env}
	run := g.sandbox(ctx, "run", "--rm", "-d", "--name", name, "--image", c.Image.Ref(), "--machine", "q35", "--transport", "serial",
		"--memory", "5G", "--cpus", "2", "--net", "none", "--timeout", "15m", "--allow-dangerous-share",
		"--share", c.Tools+":tools:ro", "--share", c.Image.Dir+":/var/lib/sandbox/images/"+c.Image.Ref()+":ro")
	if out, err := run.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("starting the guest that is to have KVM: %w\n%s", err, out)
	}
	// Emulation may leave a processor where it does not go on, and all that waits for it waits for ever. What stands still
	// for five minutes is no slow machine: the kernel panics, and the guest has ended. So it does when the kernel is at
	// fault, which would go on with half of its work.
	prepare := fmt.Sprintf(`echo 300 >/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout
echo 1 >/proc/sys/kernel/panic_on_rcu_stall
echo 1 >/proc/sys/kernel/panic_on_oops
cp -r %[1]s %[2]s
# Libraries that the guest has itself are its own, and newer.
for lib in %[2]s/lib/*; do
	ldconfig -p | grep -qF "$(basename $lib) " || cp $lib /usr/local/lib/
done
ldconfig
cp -r %[2]s/share/qemu /usr/share/`, path.Join(c.Image.Manifest.User.Home, "tools"), Tools)
	if out, err := g.Command(ctx, prepare).CombinedOutput(); err != nil {
		err = fmt.Errorf("preparing the guest that is to have KVM: %w\n%s", err, bytes.TrimSpace(out))
		return nil, errors.Join(err, g.Remove())
	}
	return g, nil
}

// Command is a shell script that root runs in the guest, up to its first command
// that fails.
func (g *Guest) Command(ctx context.Context, script string) *exec.Cmd {
	return g.sandbox(ctx, "exec", "--user", "root", name, "--", "sh", "-euc", "export PATH="+Tools+"/bin:$PATH\ncd /root\n"+script)
}

// Responds asks whether each processor of the guest still works, and returns why it
// does not. It waits until the kernel has noticed that one stands still.
func (g *Guest) Responds(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, respondTimeout)
	defer cancel()
	out, err := g.Command(ctx, `for cpu in $(seq 0 $(($(nproc --all) - 1))); do taskset -c $cpu true; done`).CombinedOutput()
	if err != nil {
		return fmt.Errorf("the guest that has KVM does not respond: %w\n%s", err, bytes.TrimSpace(out))
	}
	return nil
}

// respondTimeout is longer than a kernel takes to notice that a processor stands still.
const respondTimeout = 10 * time.Minute

// Logs are the ends of the guest's console and of its supervisor's log, to explain a
// failure.
func (g *Guest) Logs() string {
	var all strings.Builder
	for _, log := range []string{"supervisor", "console"} {
		out, err := g.sandbox(context.Background(), "logs", "--of", log, name).CombinedOutput()
		fmt.Fprintf(&all, "%s: %v\n%s\n", log, err, out[max(0, len(out)-maxLog):])
	}
	return all.String()
}

// maxLog bounds what Logs returns of each, in bytes.
const maxLog = 8 << 10

// Remove ends the guest and removes it.
func (g *Guest) Remove() error {
	if out, err := g.sandbox(context.Background(), "rm", "--force", name).CombinedOutput(); err != nil {
		return fmt.Errorf("removing the guest that had KVM: %w\n%s", err, out)
	}
	return nil
}

func (g *Guest) sandbox(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, g.program, args...)
	cmd.Env = g.env
	return cmd
}
