package notify

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the examples of docs/alert-messages.md")

// TestMessagesPage compares the examples of the manual with what Render makes; -update writes
// them.
func TestMessagesPage(t *testing.T) {
	const page = "../../../docs/alert-messages.md"
	const begin, end = "<!-- begin: messages; written by make docs -->\n", "<!-- end: messages -->\n"
	content, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(content), begin)
	old, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no marks of the examples", page)
	}
	var b strings.Builder
	examples := Examples("node1", made, pageURL)
	for _, example := range examples {
		n := *example.Notification
		n.Test = false
		b.WriteString("\n### " + strings.ToUpper(example.Name[:1]) + example.Name[1:] + "\n\n```\n" + strings.TrimSpace(Render(&n).Text) + "\n```\n")
	}
	b.WriteString("\n")
	if b.String() == old {
		return
	}
	if !*update {
		t.Fatalf("%s has other examples than the program; make docs writes them:\n%s", page, b.String())
	}
	if err := os.WriteFile(page, []byte(before+begin+b.String()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
