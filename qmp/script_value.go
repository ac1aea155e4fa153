package qmp

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var variable = regexp.MustCompile(`\$(\$|[A-Za-z_][A-Za-z0-9_]*|\{[A-Za-z_][A-Za-z0-9_]*\})?`)

func validName(name string) bool {
	return name != "$" && variable.FindString("$"+name) == "$"+name && !strings.HasPrefix(name, "{")
}

// expand replaces variables in all strings within a value, but not in the names of members.
func expand(value any, lookup func(string) (any, error)) (any, error) {
	switch v := value.(type) {
	case string:
		return expandText(v, lookup)
	case map[string]any:
		if v == nil {
			return v, nil
		}
		return expandObject(v, lookup)
	case []any:
		out := make([]any, len(v))
		var errs []error
		for i := range v {
			var err error
			out[i], err = expand(v[i], lookup)
			errs = append(errs, err)
		}
		return out, errors.Join(errs...)
	}
	return value, nil
}

func expandObject(object map[string]any, lookup func(string) (any, error)) (map[string]any, error) {
	if object == nil {
		return nil, nil
	}
	out := make(map[string]any, len(object))
	var errs []error
	for name, value := range object {
		var err error
		out[name], err = expand(value, lookup)
		errs = append(errs, err)
	}
	return out, errors.Join(errs...)
}

// expandText returns a variable's value as it is where the text is nothing but the variable, and its
// text elsewhere.
func expandText(text string, lookup func(string) (any, error)) (any, error) {
	if found := variable.FindString(text); found == text && len(text) > 1 && text != "$$" {
		return lookup(strings.Trim(text, "${}"))
	}
	var errs []error
	out := variable.ReplaceAllStringFunc(text, func(found string) string {
		switch found {
		case "$":
			errs = append(errs, fmt.Errorf("%q has a $ that no variable's name follows: a plain dollar is $$", text))
			return ""
		case "$$":
			return "$"
		}
		value, err := lookup(strings.Trim(found, "${}"))
		errs = append(errs, err)
		return plain(value)
	})
	return out, errors.Join(errs...)
}

// plain is a value as text within text.
func plain(value any) string {
	if s, ok := value.(string); ok {
		return s
	}
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprint(value)
	}
	return string(text)
}

// point returns what a JSON pointer (RFC 6901) points at.
func point(value any, pointer string) (any, error) {
	if pointer == "" {
		return value, nil
	}
	unescape := strings.NewReplacer("~1", "/", "~0", "~")
	for _, part := range strings.Split(pointer, "/")[1:] {
		part = unescape.Replace(part)
		switch v := value.(type) {
		case map[string]any:
			member, ok := v[part]
			if !ok {
				return nil, fmt.Errorf("there is no member %q for %s", part, pointer)
			}
			value = member
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || i < 0 || i >= len(v) {
				return nil, fmt.Errorf("a list of %d has no element %q for %s", len(v), part, pointer)
			}
			value = v[i]
		default:
			return nil, fmt.Errorf("%s has no parts, so there is no %q for %s", plain(value), part, pointer)
		}
	}
	return value, nil
}

// mismatch says where a value lacks what is expected of it, or returns "". An object has the expected
// members, and may have more; a member that is expected to be null may be missing; a list has an
// element for each expected one, and is empty if none is expected.
func mismatch(where string, got, want any) string {
	switch want := want.(type) {
	case map[string]any:
		object, ok := got.(map[string]any)
		if !ok {
			return differ(where, got, want)
		}
		for name, value := range want {
			if problem := mismatch(where+"/"+name, object[name], value); problem != "" {
				return problem
			}
		}
		return ""
	case []any:
		list, ok := got.([]any)
		if !ok || len(want) == 0 && len(list) > 0 {
			return differ(where, got, want)
		}
		for _, value := range want {
			if !slices.ContainsFunc(list, func(e any) bool { return mismatch("", e, value) == "" }) {
				return fmt.Sprintf("%s has no element %s, but is %s", orAll(where), plain(value), plain(got))
			}
		}
		return ""
	}
	if a, b := plain(got), plain(want); a == b && fmt.Sprintf("%T", got) == fmt.Sprintf("%T", want) || sameNumber(got, want) {
		return ""
	}
	return differ(where, got, want)
}

func sameNumber(a, b any) bool {
	x, ok1 := a.(json.Number)
	y, ok2 := b.(json.Number)
	if !ok1 || !ok2 {
		return false
	}
	f, err1 := x.Float64()
	g, err2 := y.Float64()
	return err1 == nil && err2 == nil && f == g && strings.ContainsAny(string(x+y), ".eE")
}

func differ(where string, got, want any) string {
	return fmt.Sprintf("%s is %s, and %s was expected", orAll(where), plain(got), plain(want))
}

func orAll(where string) string {
	if where == "" {
		return "the result"
	}
	return where
}
