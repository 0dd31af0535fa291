package kernel

import (
	"fmt"
	"os/exec"
	"strings"
)

// IP runs commands of ip(8), one after the other, in the network namespace of the calling
// thread: inside Do of a [Box] or a [Namespace].
func IP(commands ...string) error {
	for _, command := range commands {
		output, err := exec.Command("ip", strings.Fields(command)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ip %s: %w: %s", command, err, output)
		}
	}
	return nil
}
