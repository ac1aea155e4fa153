package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/machine/project"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/stack"
)

// answerProject opens what a guest asks for to its sandbox, as stack.AnswerSandbox does, and to later ones of its project.
const answerProject = "project"

func openAnswers(dirs layout.Dirs) project.Answers { return project.Answers{Dir: dirs.Answers()} }

// joinProject makes a sandbox that is to be made one of its project: of the directory of its file, or else of the first
// that it shares. One that may ask has what was answered for that. It is the user's word, so flags take nothing away from
// it; in the other modes nobody is asked, and what is open was said beforehand.
func joinProject(config *machine.Config, dir string, answers project.Answers, found sources) {
	config.Project = dir
	if shares := config.ProjectShares(); dir == "" && len(shares) > 0 {
		config.Project = shares[0].Source
	}
	if config.Project == "" || config.Network != network.ModeAsk {
		return
	}
	rules, err := answers.Rules(config.Project)
	if err != nil {
		fmt.Fprintf(notes(), "sandbox: note: what you have answered for %s does not count: %s\n", shown(config.Project), sentences(err))
		return
	}
	found.extend("allow", &config.Allow, rules, project.Source{Layer: project.UserFile, Name: "answers for " + config.Project})
}

// answerQuestion answers a question of the sandbox, and remembers the answer if it is for the project.
func answerQuestion(ctx context.Context, s *machine.Sandbox, id, answer string) error {
	if answer != answerProject {
		return s.AnswerQuestion(ctx, id, answer)
	}
	st := s.State()
	if !st.Live() {
		return s.NotRunning(st)
	}
	config, err := s.Config()
	if err != nil {
		return err
	}
	if config.Project == "" {
		return fmt.Errorf("%s is of no project, as it was made without a %s and shares nothing: answer with sandbox, which is for this one", s.Name, project.FileName)
	}
	i := slices.IndexFunc(st.Questions, func(q machine.Question) bool { return q.ID == id && q.Answer == "" })
	if i < 0 {
		return api.Errorf(api.CodeInvalid, "no question with the ID %q is open", id)
	}
	if st.Questions[i].Key != "" {
		return errors.New("a key of your ssh agent is not opened for a project: answer with sandbox, which is for this one until it ends")
	}
	if err := s.AnswerQuestion(ctx, id, stack.AnswerSandbox); err != nil {
		return err
	}
	dirs, err := layout.DefaultDirs(os.Getenv, os.Getuid())
	if err == nil {
		err = openAnswers(dirs).Add(config.Project, st.Questions[i].Rule)
	}
	if err != nil {
		return fmt.Errorf("%s is open to %s, but not to later sandboxes of its project: %w", st.Questions[i].Rule, s.Name, err)
	}
	return nil
}

// showAnswers shows what was opened for projects.
func showAnswers(w io.Writer, answers project.Answers) error {
	all, err := answers.List()
	for _, r := range all {
		showAsks(w, fmt.Sprintf("you have opened for %s, with --net ask", shown(r.Directory)), r.Asks)
	}
	return err
}
