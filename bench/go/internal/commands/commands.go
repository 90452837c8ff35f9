// Package commands is how the programs of the benchmark are led: one JSON object a line on
// standard input, each answered by one on standard output.
package commands

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// Answer writes one line to standard output.
func Answer(answer any) error {
	return json.NewEncoder(os.Stdout).Encode(answer)
}

// Follow gives each command to `do` and writes its answer, until the command "quit" or the end
// of standard input. The command is the value of "do"; all other members are its arguments.
func Follow(do func(command string, arguments json.RawMessage) (answer any, err error)) error {
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadBytes('\n') // A line may be megabytes: the times of all changes.
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var command struct{ Do string }
		if err := json.Unmarshal(line, &command); err != nil {
			return fmt.Errorf("a command is not JSON: %w", err)
		}
		if command.Do == "quit" {
			return nil
		}
		answer, err := do(command.Do, line)
		if err != nil {
			return fmt.Errorf("command %q: %w", command.Do, err)
		}
		if err := Answer(answer); err != nil {
			return err
		}
	}
}

// Fail ends the program with one line on standard error.
func Fail(err error) {
	fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[0], err)
	os.Exit(1)
}
