package secret

import (
	"testing"
)

func TestASecretIsForPathsOfItsHost(t *testing.T) {
	narrow := Spec{Name: "TOKEN", Hosts: []Host{tokenHost, keyHost}, Paths: map[Host][]string{tokenHost: {"/o/r", "/o/r.git"}}}
	table, err := NewTable(Entry{narrow, token}, Entry{Spec{Name: "KEY", Hosts: []Host{tokenHost}}, key})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"TOKEN": realToken, "KEY": realKey} {
		if err := table.Set(name, value(t, text)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		path   string
		header []string
		gets   bool
	}{
		{"/o/r", nil, true},
		{"/o/r/", nil, true},
		{"/o/r/a%20b?c=/../d", nil, true},
		{"/o/%72", nil, true},
		{"/o/r.git/info/refs", nil, true},
		{"", nil, false},
		{"/", nil, false},
		{"/o", nil, false},
		{"/o/", nil, false},
		{"/o/r2", nil, false},
		{"/o/r.git2", nil, false},
		{"/O/R", nil, false},
		{"/p/o/r", nil, false},
		{"//o/r", nil, false},
		{"/o//r", nil, false},
		{"/./o/r", nil, false},
		{"/x/../o/r", nil, false},
		{"/o/r/../s", nil, false},
		{"/o/r/%2e%2e/s", nil, false},
		{"/o/r/..%2fs", nil, false},
		{"/o/r/a%2fb", nil, false},
		{"/o/r/%252e%252e/s", nil, false},
		{"/o/r;x", nil, false},
		{"/o/r//", nil, false},
		{"/o/r%5c..%5cs", nil, false},
		{"/o/r", []string{"X-Original-Url", "/o/r/x?y"}, true},
		{"/o/r", []string{"X-Original-Url", "/o/s"}, false},
		{"/o/r", []string{"X_Rewrite_Url", "/o/r/.."}, false},
	} {
		header := append([]string{"Authorization", "Bearer " + token, "X-Api-Key", key}, c.header...)
		r := request(t, "GET", "https://h"+c.path, nil, header...)
		rule, name := table.Apply(tokenHost, r)
		if c.gets && (rule != "" || r.Header.Get("Authorization") != "Bearer "+realToken || r.Header.Get("X-Api-Key") != realKey) ||
			!c.gets && (rule != RuleMisplaced || name != "TOKEN") {
			t.Errorf("%s %v: %q of %q, %v", c.path, c.header, rule, name, r.Header)
		}
	}
	// A secret that is for all of a host is, beside one that is not; so is this one at its other host.
	r := request(t, "GET", "https://h/x/../y", nil, "X-Api-Key", key)
	if rule, _ := table.Apply(tokenHost, r); rule != "" || r.Header.Get("X-Api-Key") != realKey {
		t.Errorf("%q, %v", rule, r.Header)
	}
	r = request(t, "GET", "https://h/x", nil, "Authorization", basic("u:"+token))
	if rule, _ := table.Apply(keyHost, r); rule != "" || r.Header.Get("Authorization") != basic("u:"+realToken) {
		t.Errorf("%q, %v", rule, r.Header)
	}
	if hosts := table.Hosts(); len(hosts) != 2 || hosts[0] != tokenHost {
		t.Errorf("requests are read to %v", hosts)
	}
}
