package main

import "golang.org/x/sys/unix"

// jumpNowhere lets a stopped process go on where there is no code.
func jumpNowhere(pid int) error {
	var regs unix.PtraceRegs
	if err := unix.PtraceGetRegs(pid, &regs); err != nil {
		return err
	}
	regs.Pc = 0
	return unix.PtraceSetRegs(pid, &regs)
}
