package wire

// linuxSignals are the signals of a Linux guest by their names without SIG.
// The numbers are those of x86-64 and aarch64 alike, whatever the host is.
func linuxSignals() []string {
	return []string{
		1: "HUP", 2: "INT", 3: "QUIT", 4: "ILL", 5: "TRAP", 6: "ABRT", 7: "BUS",
		8: "FPE", 9: "KILL", 10: "USR1", 11: "SEGV", 12: "USR2", 13: "PIPE",
		14: "ALRM", 15: "TERM", 16: "STKFLT", 17: "CHLD", 18: "CONT", 19: "STOP",
		20: "TSTP", 21: "TTIN", 22: "TTOU", 23: "URG", 24: "XCPU", 25: "XFSZ",
		26: "VTALRM", 27: "PROF", 28: "WINCH", 29: "IO", 30: "PWR", 31: "SYS",
	}
}

// SignalNumber returns the number that a signal's name, without SIG, has in
// the guest, or 0 if there is no such signal.
func SignalNumber(name string) int {
	for number, known := range linuxSignals() {
		if number > 0 && known == name {
			return number
		}
	}
	return 0
}

// SignalName returns the name, without SIG, of a signal of the guest, or an
// empty string if it has none.
func SignalName(number int) string {
	names := linuxSignals()
	if number < 0 || number >= len(names) {
		return ""
	}
	return names[number]
}
