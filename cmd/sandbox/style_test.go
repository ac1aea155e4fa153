package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// parseAll calls found with each file of programs of this module in dir and below, which
// no tests are.
func parseAll(t *testing.T, dir string, found func(files *token.FileSet, file *ast.File)) {
	t.Helper()
	files := token.NewFileSet()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || d.Name() == ".git") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(files, path, nil, 0)
		if err == nil {
			found(files, file)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// isCall tells whether a node is a call of a function by that name, such as errors.As.
func isCall(n ast.Node, of, name string) bool {
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return false
	}
	function, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	base, ok := function.X.(*ast.Ident)
	return ok && base.Name == of && function.Sel.Name == name
}

// TestErrorsAreAskedForTheirTypeInOneWay holds CONTRIBUTING.md: a switch over several
// types has no place for the variable that errors.AsType gives.
func TestErrorsAreAskedForTheirTypeInOneWay(t *testing.T) {
	parseAll(t, repository, func(files *token.FileSet, file *ast.File) {
		fits := map[ast.Node]bool{}
		ast.Inspect(file, func(n ast.Node) bool {
			if clause, ok := n.(*ast.CaseClause); ok {
				for _, condition := range clause.List {
					ast.Inspect(condition, func(n ast.Node) bool {
						fits[n] = true
						return true
					})
				}
			}
			if isCall(n, "errors", "As") && !fits[n] {
				t.Errorf("%s: use errors.AsType", files.Position(n.Pos()))
			}
			return true
		})
	})
}

func TestErrorsAreLoggedByOneKey(t *testing.T) {
	logs := []string{"Debug", "Info", "Warn", "Error", "With"}
	checked := 0
	parseAll(t, repository, func(files *token.FileSet, file *ast.File) {
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if function, ok := call.Fun.(*ast.SelectorExpr); !ok || !slices.Contains(logs, function.Sel.Name) {
				return true
			}
			for i := range max(len(call.Args)-1, 0) {
				key, ok := call.Args[i].(*ast.BasicLit)
				value, named := call.Args[i+1].(*ast.Ident)
				if !ok || key.Kind != token.STRING {
					continue
				}
				isError := named && value.Name == "err"
				if isError {
					checked++
				}
				if isError && key.Value != `"err"` || i > 0 && key.Value == `"error"` {
					t.Errorf("%s: an error is logged by the key %s in place of err", files.Position(key.Pos()), key.Value)
				}
			}
			return true
		})
	})
	if checked < 30 {
		t.Errorf("only %d logged errors were found: the code is not read as it is written", checked)
	}
}

// TestCommandsAreNamedWithoutQuotes is for what is said: backquotes are one more thing
// to leave out when one copies a command.
func TestCommandsAreNamedWithoutQuotes(t *testing.T) {
	quoted := regexp.MustCompile("[`'\"]sandbox [a-z]")
	for _, dir := range []string{"agent", "cmd", "image", "machine", "network", "qemu", "qmp", "virtiofs", "internal"} {
		literals(t, filepath.Join(repository, dir), func(at token.Position, text string) {
			if !strings.Contains(text, "\n") && quoted.MatchString(text) { // helps and scripts have rules of their own
				t.Errorf("%s: %q", at, text)
			}
		})
	}
}

// TestUsageErrorsAreMadeInOnePlace keeps their status and their words alike.
func TestUsageErrorsAreMadeInOnePlace(t *testing.T) {
	parseAll(t, ".", func(files *token.FileSet, file *ast.File) {
		ast.Inspect(file, func(n ast.Node) bool {
			literal, ok := n.(*ast.CompositeLit)
			if !ok || len(literal.Elts) != 2 {
				return true
			}
			code, ok := literal.Elts[0].(*ast.Ident)
			if at := files.Position(n.Pos()); ok && code.Name == "exitUsage" && at.Filename != "main.go" {
				t.Errorf("%s: use usage", at)
			}
			return true
		})
	})
}
