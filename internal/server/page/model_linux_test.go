package page

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"testing"
)

// TestModelFoldsAsOpenSet runs the table of [model.OpenSet] in the page's model.
func TestModelFoldsAsOpenSet(t *testing.T) {
	table, err := os.ReadFile("../../model/testdata/openset.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name string
		Want []string
	}
	if err := json.Unmarshal(table, &cases); err != nil {
		t.Fatal(err)
	}
	f := newFake(t)
	p := newTab(t, 1280, 900)
	p.live(f, "/")
	got := eval[[][]string](p, fmt.Sprintf(`import('/assets/model.js').then(({ Model }) => (%s).map(({ steps }) => {
		const model = new Model();
		for (const { expect, event, list } of steps) {
			if (expect) model.expect();
			else if (event) model.apply(event);
			else model.setPorts({ time: new Date().toISOString(), ports: list });
		}
		const open = [...model.entries.values()].flatMap(({ id, endpoints }) => [...endpoints.values()].map((o) => [id, o]));
		return open.map(([id, o]) => [id, o.port + '/' + o.protocol, o.address, o.processes?.[0]?.name ?? '-', o.exposure ?? '-', o.opened_at].join(' ')).sort();
	}))`, table))
	if len(cases) == 0 || len(got) != len(cases) {
		t.Fatalf("%d results for %d cases", len(got), len(cases))
	}
	for i, test := range cases {
		if !slices.Equal(got[i], test.Want) {
			t.Errorf("%s: open are %q, want %q", test.Name, got[i], test.Want)
		}
	}
}
