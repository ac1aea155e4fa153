// Package environ chooses what a program gets to know of our environment. A
// user's holds keys and tokens that are no business of a package's scripts.
package environ

import (
	"slices"
	"strings"
)

// Proxies are the variables by which programs find their way to the network.
func Proxies() []string {
	var names []string
	for _, name := range []string{"http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"} {
		names = append(names, name, strings.ToUpper(name))
	}
	return names
}

// Pick returns those variables ("NAME=VALUE") whose names are in names. A name
// that ends in * stands for all that begin so.
func Pick(environ []string, names ...string) []string {
	var picked []string
	for _, variable := range environ {
		name, _, _ := strings.Cut(variable, "=")
		if slices.ContainsFunc(names, func(pattern string) bool { return matches(name, pattern) }) {
			picked = append(picked, variable)
		}
	}
	return picked
}

func matches(name, pattern string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, prefix)
	}
	return name == pattern
}
