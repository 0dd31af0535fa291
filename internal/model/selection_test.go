package model

import (
	"slices"
	"strings"
	"testing"
)

const webID = "2928e81e0edbcf43683f9ffaea2bf681fdf979929137d641208303aceb0dff95"

// some are containers that selections choose from.
func some() []*ContainerRef {
	all := []*Container{
		{ID: webID, Name: "web", Labels: map[string]string{LabelProject: "shop", LabelService: "web", "team": "core/net", "empty": ""}},
		{ID: "8581d7334286", Name: "shop_db_1", Labels: map[string]string{LabelProject: "shop", LabelService: "db"}},
		{ID: "8a805ef5a95b", Name: "web-2", Labels: map[string]string{"team": "other"}},
	}
	refs := make([]*ContainerRef, len(all))
	for i, c := range all {
		refs[i] = c.Ref()
	}
	return refs
}

func TestSelection(t *testing.T) {
	const all = "web shop_db_1 web-2"
	for _, test := range []struct{ text, want, unmatched string }{
		{"", all, ""},
		{" ,\t\n,", all, ""},
		{"web", "web", ""},
		{"we", "", "we"},
		{"WEB", "", "WEB"},
		{"web, web-2", "web web-2", ""},
		{"web web-2\tnone", "web web-2", "none"},
		{"web*", "web web-2", ""},
		{"*", all, ""},
		{"w?b", "web", ""},
		{"???", "web", ""},
		{"web-[0-9]", "web-2", ""},
		{"web-[^0-9]", "", "web-[^0-9]"},
		{"web-[13-52]", "web-2", ""},
		{"[vw]eb", "web", ""},
		{"web.", "", "web."},
		{"w.b*", "", "w.b*"},
		{"!web", "shop_db_1 web-2", ""},
		{"!none", all, ""},
		{"web* !web-2", "web", ""},
		{"!web-2 web*", "web", ""},
		{"web !*", "", ""},
		{"shop/web", "web", ""},
		{"shop/*", "web shop_db_1", ""},
		{"*/db", "shop_db_1", ""},
		{"*/*", "web shop_db_1", ""},
		{"sho/web shop/we", "", "sho/web shop/we"},
		{"!shop/*", "web-2", ""},
		{"label:team", "web web-2", ""},
		{"label:team=other", "web-2", ""},
		{"label:team=core*", "web", ""},
		{"label:team=core", "", "label:team=core"},
		{"label:team=none", "", "label:team=none"},
		{"label:empty", "web", ""},
		{"label:empty=", "web", ""},
		{"label:absent=", "", "label:absent="},
		{"!label:team", "shop_db_1", ""},
		{"2928e81e0edb", "web", ""},
		{webID, "web", ""},
		{"2928e81e0ed", "", "2928e81e0ed"},
		{"!2928e81e0edb", "shop_db_1 web-2", ""},
		{"db", "shop_db_1", ""}, // a service
		{"!db", "web web-2", ""},
		{"d?", "", "d?"},
		{"web !db", "web", ""},
	} {
		selection, err := ParseSelection(test.text)
		if err != nil {
			t.Errorf("%q: %v", test.text, err)
			continue
		}
		var matched []string
		for _, c := range some() {
			if selection.Matches(c, NamesOf(some())) {
				matched = append(matched, c.Name)
			}
		}
		if got := strings.Join(matched, " "); got != test.want {
			t.Errorf("%q: matches %q, want %q", test.text, got, test.want)
		}
		if got := selection.Unmatched(some()); !slices.Equal(got, strings.Fields(test.unmatched)) {
			t.Errorf("%q: unmatched %q, want %q", test.text, got, test.unmatched)
		}
	}
}

// A word is a service only where no container has that very name.
func TestServiceOrName(t *testing.T) {
	service := (&Container{Name: "shop-web-1", Labels: map[string]string{LabelProject: "shop", LabelService: "web"}}).Ref()
	name := (&Container{Name: "web"}).Ref()
	selection, err := ParseSelection("web")
	if err != nil {
		t.Fatal(err)
	}
	alone, both := NamesOf([]*ContainerRef{service}), NamesOf([]*ContainerRef{service, name})
	if !selection.Matches(service, alone) || selection.Matches(service, both) || !selection.Matches(name, both) {
		t.Error("web selects another container than it should")
	}
	if !selection.DependsOn("web") || selection.DependsOn("we") {
		t.Error("what the selection depends on is wrong")
	}
}

func TestSelectionErrors(t *testing.T) {
	for text, want := range map[string]string{
		"a,!":             `entry "!": allowed are names`,
		"!!web":           `entry "!!web": allowed are names`,
		"web:80":          `entry "web:80": allowed are names`,
		"label=x":         `entry "label=x": allowed are names`,
		"wéb":             `entry "wéb": allowed are names`,
		"label:":          `entry "label:": allowed are label:key and label:key=value`,
		"label:=x":        `allowed are label:key`,
		"/web":            `allowed is project/service`,
		"shop/":           `allowed is project/service`,
		"a/b/c":           `allowed is project/service`,
		"a b[":            `entry "b[": allowed are classes`,
		"b[]":             `allowed are classes`,
		"b[^]":            `allowed are classes`,
		"b[z-a]":          `the range "z-a" is the wrong way round`,
		"x/[":             `allowed are classes`,
		"[/x":             `allowed are classes`,
		"label:a=[":       `allowed are classes`,
		"label:a=*\xff":   `pattern`,
		"x/b:c":           `allowed are names`,
		"b:c/x":           `allowed are names`,
		"!label:a=[b-a]x": `the range "b-a" is`,
	} {
		if _, err := ParseSelection(text); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: got %v, want %q in it", text, err, want)
		}
	}
}

func FuzzParseSelection(f *testing.F) {
	for _, seed := range []string{
		"", "web", "web*,!web-2", "shop/web", "*/*", "label:a=b", "label:a", "!label:a=[a-z]*", "b[^x-z]?", "[", "a]b", "[--a]", "[\\]", "2928e81e0edb", "label:a=\xff*", "[a-]",
	} {
		f.Add(seed, "web", "b")
	}
	f.Fuzz(func(t *testing.T, text, name, value string) {
		selection, err := ParseSelection(text)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q: error of several lines: %v", text, err)
			}
			return
		}
		c := (&Container{ID: name, Name: name, Labels: map[string]string{"a": value, LabelProject: name, LabelService: value}}).Ref()
		names := NamesOf([]*ContainerRef{c})
		matches := selection.Matches(c, names)
		unmatched := selection.Unmatched([]*ContainerRef{c})
		positive := 0
		for _, word := range unmatched {
			if strings.HasPrefix(word, "!") || !strings.Contains(text, word) {
				t.Errorf("%q: unmatched %q", text, word)
			}
		}
		for _, e := range selection.include {
			if e.selects(c, names) {
				positive++
			}
		}
		if len(unmatched)+positive != len(selection.include) {
			t.Errorf("%q: %d unmatched and %d matched of %d", text, len(unmatched), positive, len(selection.include))
		}
		// Excluding everything wins over whatever is there.
		none, err := ParseSelection(text + " !*")
		if err != nil {
			t.Errorf("%q with !*: %v", text, err)
		}
		if none.Matches(c, names) {
			t.Errorf("%q: exclusion does not win", text)
		}
		if matches && positive == 0 && len(selection.include) > 0 {
			t.Errorf("%q: matches without an entry that does", text)
		}
	})
}

func TestSelectionOfTheHost(t *testing.T) {
	for text, want := range map[string]bool{
		"": true, "(host)": true, "web (host)": true, "!web": true,
		"web": false, "*": false, "!(host)": false, "(host) !(host)": false, "shop/*": false, "label:a": false,
	} {
		selection, err := ParseSelection(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := selection.Matches(nil, NamesOf(nil)); got != want {
			t.Errorf("%q selects the host: %t, want %t", text, got, want)
		}
		if names := strings.Contains(text, "(host)") && !strings.HasPrefix(text, "!"); selection.NamesHost() != names {
			t.Errorf("%q names the host: %t, want %t", text, !names, names)
		}
		matcher := (&Filter{Containers: selection, Project: "shop"}).Matcher(NamesOf(nil))
		if matcher.Container(nil) {
			t.Errorf("%q in a project selects the host", text)
		}
	}
}
