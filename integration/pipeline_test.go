package integration

import (
	"fmt"
	"io"
	"net/http"
	"testing"

	"portwatcher/integration/internal/harness"
	"portwatcher/internal/testutil/truth"
)

// balanced waits until each stage of the pipeline of the portwatcher that serves at an
// address accounts for all that entered it.
func balanced(t *testing.T, address, source string) {
	t.Helper()
	if source == proc {
		return
	}
	harness.Eventually(t, "the stages of the pipeline balance", func() string {
		metrics, err := askMetrics(address)
		if err != nil {
			return err.Error()
		}
		if problems := truth.Unbalanced(metrics, truth.PrecisionOf(source)); len(problems) > 0 {
			return fmt.Sprint(problems)
		}
		return ""
	})
}

func askMetrics(address string) (map[string][]truth.Series, error) {
	response, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("/metrics: %s: %w", response.Status, err)
	}
	return truth.ReadMetrics(string(text))
}
