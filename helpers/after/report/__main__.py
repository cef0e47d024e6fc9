from helpers.after.report import main

if __name__ == "__main__":
    main()
