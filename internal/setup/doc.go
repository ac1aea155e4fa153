// Command setup installs what sandbox needs from the distribution: QEMU, virtiofsd, the tools that build the default
// image and, for the test set, the tools that the tests drive.
//
// It looks for the programs themselves, not for packages, so that a QEMU that somebody built by hand counts. When
// nothing is missing it touches nothing and asks no server. Otherwise it works in three stages: observe (inventory.go),
// decide (plan.go, a pure function of the release and of what was found) and act (steps.go says which commands, apply.go
// runs them). On a distribution that it does not know it lists what to install and exits with status 2.
//
// The system's apt sources are never edited. Where a release lacks something that a sibling suite of the same archive
// has (backports on Debian 12, a newer release's virtiofsd), the suite is read through a private configuration in a
// temporary directory, from the mirror that the system itself uses, and checked against the archive's installed keys.
// A program of which another version is installed, or whose libraries would clash with the system's, is borrowed: it is
// unpacked to a directory of its own.
package main
