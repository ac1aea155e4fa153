package confine

import (
	"slices"

	"golang.org/x/sys/unix"
)

// Socket is a kind of sockets that a program may make.
type Socket struct {
	Family uint32 // such as AF_INET
	Type   uint32 // such as SOCK_STREAM, without SOCK_CLOEXEC and SOCK_NONBLOCK

	// OnlyProtocol allows Protocol and no other.
	OnlyProtocol bool
	Protocol     uint32
}

// InternetSockets are those for TCP and UDP, and for echo requests where the machine allows its users to send any
// (sysctl net.ipv4.ping_group_range).
func InternetSockets() []Socket {
	return []Socket{
		{Family: unix.AF_INET, Type: unix.SOCK_STREAM},
		{Family: unix.AF_INET, Type: unix.SOCK_DGRAM},
		{Family: unix.AF_INET6, Type: unix.SOCK_STREAM},
		{Family: unix.AF_INET6, Type: unix.SOCK_DGRAM},
	}
}

// WorkingFilter allows what a program does that computes, waits, and works with the files that it has, and makes
// such sockets. It starts no other program. What is not allowed fails as if the kernel did not know it, which
// libraries are prepared for.
func WorkingFilter(sockets ...Socket) *Filter {
	unknown, forbidden := Refuse(unix.ENOSYS), Refuse(unix.EPERM)
	is := func(arg int, value uint32) Condition {
		return Condition{Arg: arg, Mask: 1<<32 - 1, Value: value}
	}
	socketType := func(kind uint32) Condition {
		return Condition{Arg: 1, Mask: 0xf, Value: kind} // without SOCK_CLOEXEC and SOCK_NONBLOCK
	}
	rules := []Rule{
		{Calls: slices.Concat(ordinaryCalls, archCalls), Do: Allow},
		// Threads, and nothing else that has a process of its own or leaves a namespace. The flags of clone3 are
		// out of a filter's sight; without it, the C library takes clone.
		{
			Calls: []int{unix.SYS_CLONE},
			When:  []Condition{{Arg: 0, Mask: unix.CLONE_THREAD, Value: unix.CLONE_THREAD}, {Arg: 0, Mask: newNamespaces, Value: 0}},
			Do:    Allow,
		},
		{Calls: []int{unix.SYS_CLONE3}, Do: unknown},
		{
			Calls: []int{unix.SYS_KILL, unix.SYS_TGKILL},
			When:  []Condition{{Arg: 0, Self: true}},
			Do:    Allow,
		},
		// Connected pairs only: who could make other Unix sockets could connect them to whoever listens.
		{
			Calls: []int{unix.SYS_SOCKETPAIR},
			When:  []Condition{is(0, unix.AF_UNIX), socketType(unix.SOCK_STREAM)},
			Do:    Allow,
		},
		// Keys that a terminal would take for its user's.
		{Calls: []int{unix.SYS_IOCTL}, When: []Condition{is(1, unix.TIOCSTI)}, Do: forbidden},
		{Calls: []int{unix.SYS_IOCTL}, When: []Condition{is(1, unix.TIOCLINUX)}, Do: forbidden},
		{Calls: []int{unix.SYS_IOCTL}, Do: Allow},
		// Nobody may look into the program, which it can say of itself.
		{Calls: []int{unix.SYS_PRCTL}, When: []Condition{is(0, unix.PR_SET_DUMPABLE), is(1, 0)}, Do: Allow},
		// Limits are read, not changed.
		{Calls: []int{unix.SYS_PRLIMIT64}, When: []Condition{is(2, 0)}, Do: Allow},
	}
	for _, option := range processOptions {
		rules = append(rules, Rule{Calls: []int{unix.SYS_PRCTL}, When: []Condition{is(0, option)}, Do: Allow})
	}
	for _, s := range sockets {
		when := []Condition{is(0, s.Family), socketType(s.Type)}
		if s.OnlyProtocol {
			when = append(when, is(2, s.Protocol))
		}
		rules = append(rules, Rule{Calls: []int{unix.SYS_SOCKET}, When: when, Do: Allow})
	}
	rules = append(rules, Rule{
		Calls: []int{unix.SYS_CLONE, unix.SYS_KILL, unix.SYS_TGKILL, unix.SYS_SOCKET, unix.SYS_SOCKETPAIR, unix.SYS_PRLIMIT64, unix.SYS_PRCTL},
		Do:    forbidden,
	})
	return &Filter{Rules: rules, Default: unknown}
}

// newNamespaces are the flags of clone(2) that make one.
const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// processOptions are those of prctl(2) that the C library, the Go runtime, and QEMU with its filter use.
var processOptions = []uint32{
	unix.PR_SET_NAME, unix.PR_GET_NAME, unix.PR_SET_TIMERSLACK, unix.PR_GET_DUMPABLE, unix.PR_CAPBSET_READ,
	unix.PR_SET_SECCOMP, unix.PR_GET_SECCOMP, unix.PR_SET_NO_NEW_PRIVS, unix.PR_GET_NO_NEW_PRIVS,
	unix.PR_MCE_KILL, unix.PR_MCE_KILL_GET, unix.PR_SET_VMA,
}

// ordinaryCalls are allowed with all arguments. The launcher needs execve to become the program. QEMU's own filter,
// which it installs later, takes it away; others find nothing to execute but themselves.
var ordinaryCalls = []int{
	// files
	unix.SYS_OPENAT, unix.SYS_CLOSE, unix.SYS_CLOSE_RANGE, unix.SYS_READ, unix.SYS_WRITE, unix.SYS_READV, unix.SYS_WRITEV,
	unix.SYS_PREAD64, unix.SYS_PWRITE64, unix.SYS_PREADV, unix.SYS_PWRITEV, unix.SYS_PREADV2, unix.SYS_PWRITEV2,
	unix.SYS_LSEEK, unix.SYS_FSTAT, unix.SYS_STATX, unix.SYS_STATFS, unix.SYS_FSTATFS, unix.SYS_FACCESSAT, unix.SYS_FACCESSAT2,
	unix.SYS_READLINKAT, unix.SYS_GETDENTS64, unix.SYS_GETCWD, unix.SYS_FCNTL, unix.SYS_FLOCK, unix.SYS_FSYNC, unix.SYS_FDATASYNC,
	unix.SYS_SYNC_FILE_RANGE, unix.SYS_FTRUNCATE, unix.SYS_FALLOCATE, unix.SYS_FADVISE64, unix.SYS_COPY_FILE_RANGE,
	unix.SYS_DUP, unix.SYS_DUP3, unix.SYS_PIPE2, unix.SYS_MEMFD_CREATE, unix.SYS_UMASK,
	// memory
	unix.SYS_BRK, unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MREMAP, unix.SYS_MPROTECT, unix.SYS_MADVISE, unix.SYS_MSYNC,
	unix.SYS_MINCORE, unix.SYS_MLOCK, unix.SYS_MLOCKALL, unix.SYS_MUNLOCK, unix.SYS_MEMBARRIER,
	// threads and signals
	unix.SYS_EXECVE, unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_FUTEX, unix.SYS_SET_TID_ADDRESS, unix.SYS_SET_ROBUST_LIST,
	unix.SYS_GET_ROBUST_LIST, unix.SYS_RSEQ, unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY, unix.SYS_SCHED_GETPARAM,
	unix.SYS_SCHED_GETSCHEDULER, unix.SYS_SCHED_GET_PRIORITY_MAX, unix.SYS_SCHED_GET_PRIORITY_MIN, unix.SYS_GETCPU,
	unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_RT_SIGPENDING, unix.SYS_RT_SIGTIMEDWAIT,
	unix.SYS_RT_SIGSUSPEND, unix.SYS_SIGALTSTACK, unix.SYS_RESTART_SYSCALL, unix.SYS_SECCOMP,
	// waiting
	unix.SYS_PPOLL, unix.SYS_PSELECT6, unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EPOLL_PWAIT2,
	unix.SYS_EVENTFD2, unix.SYS_SIGNALFD4, unix.SYS_TIMERFD_CREATE, unix.SYS_TIMERFD_SETTIME, unix.SYS_TIMERFD_GETTIME,
	unix.SYS_TIMER_CREATE, unix.SYS_TIMER_SETTIME, unix.SYS_TIMER_GETTIME, unix.SYS_TIMER_GETOVERRUN, unix.SYS_TIMER_DELETE,
	unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_CLOCK_GETRES, unix.SYS_GETTIMEOFDAY,
	// the sockets that it has
	unix.SYS_ACCEPT, unix.SYS_ACCEPT4, unix.SYS_BIND, unix.SYS_CONNECT, unix.SYS_LISTEN, unix.SYS_SHUTDOWN,
	unix.SYS_SENDTO, unix.SYS_RECVFROM, unix.SYS_SENDMSG, unix.SYS_RECVMSG, unix.SYS_SENDMMSG, unix.SYS_RECVMMSG,
	unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME, unix.SYS_GETSOCKOPT, unix.SYS_SETSOCKOPT,
	// itself
	unix.SYS_GETPID, unix.SYS_GETPPID, unix.SYS_GETTID, unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETEGID,
	unix.SYS_GETRESUID, unix.SYS_GETRESGID, unix.SYS_GETGROUPS, unix.SYS_GETRUSAGE, unix.SYS_TIMES, unix.SYS_UNAME,
	unix.SYS_SYSINFO, unix.SYS_GETRANDOM,
}
