// My courses; joining one by its code, and making a new one.

import { fill, h } from "../ui/dom.js";
import { openDialog } from "../ui/dialog.js";
import { field, form } from "../ui/form.js";
import { plural } from "../ui/format.js";
import { icon } from "../ui/icons.js";
import { empty, failed, loading } from "../ui/states.js";

const ROLE_NAMES = {
  owner: "Owner",
  instructor: "Instructor",
  assistant: "Assistant",
  learner: "Learner",
  observer: "Observer",
};

export function coursesView({ api, go }) {
  const list = h("div", {}, loading("Loading your courses …"));
  const opened = (course) => go(`/courses/${course.id}`);
  const join = () => openDialog("Join a course", (close) => joinForm(api, close, opened));
  const create = () => openDialog("Create a course", (close) => createForm(api, close, opened));

  async function load() {
    try {
      const courses = await allCourses(api);
      fill(list, courses.length ? courseGrid(courses) : noCourses(join, create));
    } catch (error) {
      fill(list, failed(error, load));
    }
  }
  load();

  return {
    title: "My courses",
    crumbs: [["My courses", "/courses"]],
    element: h("div", { class: "column" }, [
      h("div", { class: "page-head" }, [
        h("h1", {}, "My courses"),
        h("div", { class: "page-actions" }, [
          h("button", { class: "button", type: "button", onclick: create }, icon("plus"), "Create a course"),
          h("button", { class: "button primary", type: "button", onclick: join }, "Join a course"),
        ]),
      ]),
      list,
    ]),
  };
}

async function allCourses(api) {
  const courses = [];
  let cursor = null;
  do {
    const page = await api.courses(cursor);
    courses.push(...page.items);
    cursor = page.next_cursor;
  } while (cursor);
  return courses;
}

function courseGrid(courses) {
  return h("ul", { class: "course-grid" }, courses.map(courseCard));
}

function courseCard(course) {
  return h("li", { class: "card course-card" }, [
    h("h2", {}, h("a", { class: "card-link", href: `#/courses/${course.id}` }, course.title)),
    h("p", { class: "course-description" }, course.description || "No description yet."),
    h("p", { class: "card-foot" }, [
      h("span", { class: "tag" }, ROLE_NAMES[course.role] ?? course.role),
      h("span", {}, plural(course.member_count, "member")),
    ]),
  ]);
}

function noCourses(join, create) {
  return empty({
    icon: "people",
    title: "You are in no course yet",
    text: "Your teacher gives you a code to join a course. If you teach, create a course of your own.",
    actions: [
      h("button", { class: "button primary", type: "button", onclick: join }, "Join a course"),
      h("button", { class: "button", type: "button", onclick: create }, "Create a course"),
    ],
  });
}

function joinForm(api, close, opened) {
  return form({
    fields: [
      field(
        "Code",
        {
          name: "code",
          required: true,
          autocomplete: "off",
          autocapitalize: "characters",
          spellcheck: "false",
          maxlength: 40,
        },
        "Your teacher has it, for example ASTRO101.",
      ),
    ],
    action: "Join",
    submit: async ({ code }) => {
      const answer = await api.joinCourse(code.trim());
      close();
      opened(answer.course ?? answer);
    },
  });
}

function createForm(api, close, opened) {
  return form({
    fields: [
      field("Title", { name: "title", required: true, maxlength: 200, autocomplete: "off" }),
      field("Description", { name: "description", rows: 3, maxlength: 2000 }),
    ],
    action: "Create course",
    submit: async ({ title, description }) => {
      const course = await api.createCourse(title.trim(), description.trim());
      close();
      opened(course);
    },
  });
}
