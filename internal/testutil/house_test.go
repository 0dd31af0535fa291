// Package testutil_test checks what every package of the product promises its readers.
package testutil_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// eachFile calls f with each Go file of the product that is no test.
func eachFile(t *testing.T, f func(path string, set *token.FileSet, file *ast.File)) {
	t.Helper()
	files := 0
	for _, root := range []string{"../../cmd", "../../internal"} {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, path, nil, parser.ParseComments)
			if err != nil {
				return err
			}
			if !ast.IsGenerated(file) {
				files++
				f(path, set, file)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files < 100 {
		t.Fatalf("%d files were read; want those of the whole product", files)
	}
}

// TestExportedNamesHaveContracts: each exported name has a comment.
func TestExportedNamesHaveContracts(t *testing.T) {
	packages := map[string]bool{} // by folder: it has a package comment
	eachFile(t, func(path string, set *token.FileSet, file *ast.File) {
		folder := filepath.Dir(path)
		packages[folder] = packages[folder] || file.Doc != nil
		lacks := func(name *ast.Ident) { t.Errorf("%s: %s has no comment", set.Position(name.Pos()), name.Name) }
		for _, declaration := range file.Decls {
			switch d := declaration.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) {
					lacks(d.Name)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch s := spec.(type) {
					case *ast.TypeSpec:
						if s.Name.IsExported() && s.Doc == nil && d.Doc == nil {
							lacks(s.Name)
						}
					case *ast.ValueSpec:
						for _, name := range s.Names {
							if name.IsExported() && s.Doc == nil && s.Comment == nil && d.Doc == nil {
								lacks(name)
							}
						}
					}
				}
			}
		}
	})
	for folder, documented := range packages {
		if !documented {
			t.Errorf("%s: the package has no comment", folder)
		}
	}
}

func exportedReceiver(f *ast.FuncDecl) bool {
	if f.Recv == nil {
		return true
	}
	receiver := f.Recv.List[0].Type
	if pointer, ok := receiver.(*ast.StarExpr); ok {
		receiver = pointer.X
	}
	if generic, ok := receiver.(*ast.IndexExpr); ok {
		receiver = generic.X
	}
	name, ok := receiver.(*ast.Ident)
	return ok && name.IsExported()
}

// private are words that stood for too many things here; what happened to the reader is in
// the contributing guide.
var private = regexp.MustCompile(`(?i)\b(tell|tells|telling|told|say|says|saying|said|calm)\b`)

// TestPlainEnglish: comments, texts and names do without the words that once stood for
// everything.
func TestPlainEnglish(t *testing.T) {
	eachFile(t, func(path string, set *token.FileSet, file *ast.File) {
		for _, group := range file.Comments {
			for _, comment := range group.List {
				if word := private.FindString(comment.Text); word != "" {
					t.Errorf("%s: the comment has %q: %s", set.Position(comment.Pos()), word, comment.Text)
				}
			}
		}
		ast.Inspect(file, func(node ast.Node) bool {
			switch n := node.(type) {
			case *ast.BasicLit:
				if word := private.FindString(n.Value); n.Kind == token.STRING && word != "" {
					t.Errorf("%s: the text has %q: %s", set.Position(n.Pos()), word, n.Value)
				}
			case *ast.Ident:
				if private.MatchString(n.Name) {
					t.Errorf("%s: the name %q", set.Position(n.Pos()), n.Name)
				}
			}
			return true
		})
	})
}
