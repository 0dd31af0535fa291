package main

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"portwatcher/internal/client"
	"portwatcher/internal/server/api"
)

// defaultServer is where a running instance listens by default.
const defaultServer = "http://127.0.0.1:9888"

// firstAnswer is the time after which an instance at the default address counts as not running.
const firstAnswer = 3 * time.Second

// instanceFlags are the flags that select the running instance to ask.
type instanceFlags struct {
	server, tokenFile, caFile string
	local                     bool
	// named means that the address was given, so that an instance has to answer there.
	named bool
}

func (f *instanceFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.server, "server", defaultServer, "running instance to ask, http://HOST:PORT or https://HOST:PORT; where none answers at the default address, this command watches by itself [PORTWATCHER_SERVER]")
	flags.StringVar(&f.tokenFile, "token-file", "", "file with the instance's token [PORTWATCHER_TOKEN_FILE]")
	flags.StringVar(&f.caFile, "ca-file", "", "file with certificates (PEM) to trust instead of the system's [PORTWATCHER_CA_FILE]")
	flags.BoolVar(&f.local, "local", false, "ask no instance, watch by itself")
	cmd.MarkFlagsMutuallyExclusive("server", "local")
}

// connect returns a client of the running instance, or nil where the command watches by itself.
// The caller closes the client.
func (f *instanceFlags) connect(ctx context.Context, cmd *cobra.Command) (*client.Client, error) {
	if f.local {
		return nil, nil
	}
	f.fromEnvironment(cmd)
	c, err := client.New(client.Options{Server: f.server, TokenFile: f.tokenFile, CAFile: f.caFile})
	if err != nil {
		return nil, usageError{err}
	}
	if f.named {
		return c, nil
	}
	ctx, cancel := context.WithTimeout(ctx, firstAnswer)
	defer cancel()
	_, err = c.Status(ctx)
	switch problem := (*api.Problem)(nil); {
	case err == nil:
		return c, nil
	case notRunning(err):
		c.Close()
		return nil, nil
	case errors.As(err, &problem) && problem.Status >= 500:
		return c, nil // it runs, and may be starting
	}
	c.Close()
	return nil, errors.Join(err, errors.New("--local watches without asking it, and --server names another instance"))
}

// why returns why no instance is asked.
func (f *instanceFlags) why() string {
	if f.local {
		return "--local"
	}
	return "no instance at " + f.server
}

// notRunning reports whether an error means that no server runs.
func notRunning(err error) bool {
	var operation *net.OpError
	return errors.As(err, &operation) && operation.Op == "dial" || errors.Is(err, context.DeadlineExceeded)
}

// fromEnvironment reads the environment variables of the flags that are not given.
func (f *instanceFlags) fromEnvironment(cmd *cobra.Command) {
	for _, flag := range []struct {
		name  string
		value *string
	}{{"server", &f.server}, {"token-file", &f.tokenFile}, {"ca-file", &f.caFile}} {
		given := cmd.Flags().Changed(flag.name)
		if value := os.Getenv("PORTWATCHER_" + strings.ToUpper(strings.ReplaceAll(flag.name, "-", "_"))); !given && value != "" {
			*flag.value, given = value, true
		}
		if flag.name == "server" {
			f.named = given
		}
	}
}
