package harness

import "testing"

// Volume makes a named volume for the test and returns its name.
func (e *Engine) Volume(t testing.TB, suffix string) string {
	t.Helper()
	name := Name(t, suffix)
	e.MustDocker(t, "volume", "create", "--label", Label, "--label", runLabel(), name)
	t.Cleanup(func() {
		if _, err := e.Docker("volume", "rm", name); err != nil {
			t.Error(err)
		}
	})
	return name
}
