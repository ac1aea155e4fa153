package debian

import "testing"

func TestWhatIsKept(t *testing.T) {
	for name, want := range map[string]bool{
		"usr/bin/git":                        true,
		"boot/config-6.12":                   false,
		"boot":                               true,
		"vmlinuz.old":                        false,
		"usr/share/doc/git/README":           false,
		"usr/share/doc/git/copyright":        true,
		"usr/share/vim/vim91/doc/usr_01.txt": false,
		"usr/share/vim/vim91/syntax/go.vim":  true,
		"usr/share/perl/5.40.1/Unicode/Collate/Locale.pm":                                    false,
		"usr/share/perl/5.40.1/Unicode/UCD.pm":                                               true,
		"usr/lib/x86_64-linux-gnu/perl/5.40.1/CORE/perl.h":                                   false,
		"usr/lib/x86_64-linux-gnu/perl/5.40.1/auto/B/B.so":                                   true,
		"usr/lib/x86_64-linux-gnu/perl/5.40.1/auto/Encode/JP/JP.so":                          false,
		"usr/lib/x86_64-linux-gnu/perl/5.40.1/auto/Encode/Encode.so":                         true,
		"usr/lib/x86_64-linux-gnu/gconv/IBM1390.so":                                          false,
		"usr/lib/x86_64-linux-gnu/gconv/IBM850.so":                                           true,
		"usr/lib/x86_64-linux-gnu/gconv/ISO8859-15.so":                                       true,
		"usr/lib/python3.13/lib-dynload/_testcapi.cpython-313-x86_64-linux-gnu.so":           false,
		"usr/lib/python3.13/lib-dynload/_sqlite3.cpython-313-x86_64-linux-gnu.so":            true,
		"usr/lib/python3.13/unittest/case.py":                                                true,
		"usr/lib/python3/dist-packages/test/x.py":                                            true,
		"usr/lib/git-core/git-http-push":                                                     false,
		"usr/lib/git-core/git-remote-http":                                                   true,
		"usr/share/vim/vim91/spell/en.latin1.spl":                                            false,
		"usr/share/vim/vim91/spell/en.utf-8.spl":                                             true,
		"var/lib/dpkg/info/git.md5sums":                                                      false,
		"var/lib/dpkg/info/git.list":                                                         true,
		"usr/lib/modules/6.12.0-cloud/kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko.xz": false,
		"usr/lib/modules/6.12.0-cloud/kernel/drivers/net/virtio_net.ko.xz":                   true,
		"usr/lib/modules/6.12.0-cloud/kernel/drivers/scsi/virtio_scsi.ko.xz":                 true,
		"usr/lib/modules/6.12.0-cloud/kernel/drivers/scsi/xen-scsifront.ko.xz":               false,
		"usr/lib/modules/6.12.0-cloud/kernel/drivers/acpi/button.ko.xz":                      true,
		"usr/lib/modules/6.12.0-cloud/kernel/fs/btrfs/btrfs.ko.xz":                           true,
		"usr/lib/modules/6.12.0-cloud/kernel/fs/bcachefs/bcachefs.ko.xz":                     false,
		"usr/share/zsh/functions/Completion/Unix.zwc":                                        false,
		"usr/share/zsh/functions/Completion/Unix/_git":                                       true,
		"usr/share/terminfo/v/vt52-basic":                                                    false,
		"usr/share/terminfo/x/xterm-ghostty":                                                 true,
		"usr/share/terminfo/a/alacritty":                                                     true,
		"usr/share/terminfo/w":                                                               true,
		"lib/terminfo/x/xterm-256color":                                                      true,
		"usr/lib/udev/hwdb.d/20-pci.hwdb":                                                    false,
		"etc/ssh/ssh_host_rsa_key":                                                           false,
		"etc/ssh/sshd_config":                                                                true,
		"usr/local/lib/node_modules/npm/man/man1/npm.1":                                      false,
		"usr/local/lib/node_modules/npm/lib/npm.js":                                          true,
		"usr/local/lib/node_modules/x/docs/index.html":                                       true,
		"var/lib/dpkg/lock-frontend":                                                         false,
		"usr/lib/klibc-BPTYi8GnGbOHfo9vGn8oXfPKMIw.so":                                       false,
		"etc/dpkg/dpkg.cfg.d/99mmdebstrap":                                                   false,
		"usr/lib/systemd/system/multi-user.target.wants/x.so":                                true,
	} {
		if got := keep(name, false, dropped()); got != want {
			t.Errorf("%s is kept: %t", name, got)
		}
	}
	if !keep("var/cache/apt", true, dropped()) || keep("var/cache/apt/pkgcache.bin", false, dropped()) {
		t.Error("a directory of /var is not kept empty")
	}
}
